// Small things that every part of the page does with the document.

import { text } from "./text.js";

export const byId = (id) => document.getElementById(id);
export const part = (row, name) => row.querySelector(`[data-part="${name}"]`);

export function label(element, words) {
  element.setAttribute("aria-label", words);
  element.title = words;
}

export const newRow = (template) => byId(template).content.firstElementChild.cloneNode(true);

// A row for a file: its name, and in the place of a picture the ending of the name.
export function newFileRow(template, name) {
  const row = newRow(template);
  const extension = /\.(\w{1,4})$/.exec(name);
  part(row, "tile").textContent = extension ? extension[1].toUpperCase() : "";
  part(row, "name").textContent = name;
  return row;
}

// For screen readers alone.
export const say = (message) => (byId("status").textContent = message);

// One line at the top of the page: of what failed, or news. With `again`, its button repeats what failed.
export function notify(message, { again, news = false } = {}) {
  byId("notice").classList.toggle("news", news);
  byId("notice-text").textContent = message;
  byId("notice-button").textContent = text(again ? "tryAgain" : "dismiss");
  byId("notice-button").onclick = () => {
    byId("notice").hidden = true;
    again?.();
  };
  byId("notice").hidden = false;
}

// Asks in a dialog; the promise holds true only for an explicit yes.
export function ask(title, detail, yes) {
  const dialog = byId("ask");
  byId("ask-title").textContent = title;
  byId("ask-detail").textContent = detail;
  byId("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => (dialog.onclose = () => resolve(dialog.returnValue === "yes")));
}

// Copies what a field shows, and says so in `told`; where the browser lets no page copy, selects it.
export async function copy(field, told) {
  const copied = await navigator.clipboard?.writeText(field.value).then(() => true, () => false);
  if (!copied) field.select();
  told.textContent = text(copied ? "copied" : "copyByHand");
}
