// What the page says: the table of its language, which came within the page, and figures as its reader writes them.

const texts = JSON.parse(document.getElementById("texts").textContent);
const language = document.documentElement.lang;
const plurals = new Intl.PluralRules(language);

// An American and a Briton read the same words, but not the same dates.
const locale = navigator.languages.find((tag) => tag.split("-")[0] === language.split("-")[0]) ?? language;

const filled = (words, values) => words.replace(/\{(\w+)\}/g, (_, name) => values[name]);

// The words of that name, with values in their places. Where there are several forms, `count` chooses.
export function text(name, values = {}) {
  const words = texts[name];
  return filled(typeof words === "string" ? words : words[plurals.select(values.count)] ?? words.other, values);
}

// ---- Figures

export function quantity(value, unit, digits = 0) {
  const unitDisplay = unit === "byte" ? "long" : "short";
  return value.toLocaleString(locale, { style: "unit", unit, unitDisplay, maximumFractionDigits: digits });
}

export function bytes(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  let step = 0;
  for (; count >= 999.5 && step < units.length - 1; step += 1) count /= 1000;
  return quantity(count, units[step], step > 0 && count < 99.95 ? 1 : 0);
}

export function duration(seconds) {
  if (seconds <= 59) return quantity(Math.ceil(seconds), "second");
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return quantity(minutes, "minute");
  return `${quantity(Math.floor(minutes / 60), "hour")} ${quantity(minutes % 60, "minute")}`;
}

export const percent = (part) => part.toLocaleString(locale, { style: "percent" });

export const day = (time) => new Date(time).toLocaleDateString(locale, { dateStyle: "long" });

export function moment(time) {
  const date = new Date(time);
  const year = date.getFullYear() === new Date().getFullYear() ? undefined : "numeric"; // this year goes without saying
  return date.toLocaleString(locale, { day: "numeric", month: "short", year, hour: "2-digit", minute: "2-digit" });
}

// Facts side by side; where they do not fit, the line breaks between two of them.
export const line = (facts) => facts.map((fact) => fact.replaceAll(" ", "\u00a0")).join("\u00a0· ");

// ---- What the server says

// The table's `errors` are by what the server says in English, with {names} for what varies; numbers of {bytes...} are
// shown as sizes.
const errors = Object.entries(texts.errors).map(([message, words]) => {
  const pieces = message.split(/\{(\w+)\}/); // every second one is a name
  const pattern = pieces.map((piece, at) => (at % 2 ? "(.+?)" : piece.replace(/[^\w ]/g, "\\$&"))).join("");
  return { pattern: new RegExp(`^${pattern}$`), names: pieces.filter((_, at) => at % 2), words };
});

// The server's message in the reader's words; as it is, if there are none for it.
export function errorText(message) {
  for (const { pattern, names, words } of errors) {
    const found = pattern.exec(message);
    if (!found) continue;
    const shown = (name, at) => (name.startsWith("bytes") ? bytes(Number(found[at + 1])) : found[at + 1]);
    return filled(words, Object.fromEntries(names.map((name, at) => [name, shown(name, at)])));
  }
  return text("refused", { message });
}
