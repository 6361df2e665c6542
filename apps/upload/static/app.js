// The page of the upload app: log in, send files, fetch or delete what is stored.
//
// `queue` holds the files this tab is sending. It survives the end of a session: what was refused with 401 waits and
// goes on after the next login. What is stored is the server's to know: after a change the list is read anew. State is
// kept here and drawn; it is never read back from the document. Only `put` knows how a file travels.

import { locale, text } from "./strings.js";

const AT_ONCE = 3; // uploads under way at the same time
const TICK = 250; // milliseconds between two drawings of the progress
const RATE_MEMORY = 3000; // milliseconds after which an old rate counts for about a third
const STALLED = 5000; // milliseconds without progress after which an upload is called stalled

const SEARCH_FROM = 5; // files from which on there is a field to search them
const THUMBNAIL = /\.(png|jpe?g|gif|webp|avif)$/i;
const THUMBNAIL_SIZE = 5e6; // bytes: a larger image is not fetched for its thumbnail

const byId = (id) => document.getElementById(id);
const part = (row, name) => row.querySelector(`[data-part="${name}"]`);
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

// ---- Figures, in the reader's language

function quantity(value, unit, digits = 0) {
  const unitDisplay = unit === "byte" ? "long" : "short";
  return value.toLocaleString(locale, { style: "unit", unit, unitDisplay, maximumFractionDigits: digits });
}

function bytes(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  let step = 0;
  for (; count >= 999.5 && step < units.length - 1; step += 1) count /= 1000;
  return quantity(count, units[step], step > 0 && count < 99.95 ? 1 : 0);
}

function duration(seconds) {
  if (seconds <= 59) return quantity(Math.ceil(seconds), "second");
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return quantity(minutes, "minute");
  return `${quantity(Math.floor(minutes / 60), "hour")} ${quantity(minutes % 60, "minute")}`;
}

// Facts side by side; where they do not fit, the line breaks between two of them.
const line = (facts) => facts.map((fact) => fact.replaceAll(" ", "\u00a0")).join("\u00a0· ");

// ---- Talking to the server

class ServerError extends Error {
  constructor(status, answer) {
    super(answer?.error ?? text.unexpected(status));
    this.status = status; // 0: there was no answer
  }
}

async function call(method, path, value) {
  const content = value && { body: JSON.stringify(value), headers: { "Content-Type": "application/json" } };
  const response = await fetch(path, { method, cache: "no-store", ...content }).catch(() => null);
  if (response === null) throw new ServerError(0, { error: text.unreachable });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new ServerError(response.status, answer);
  return answer;
}

// Sends one file; the promise holds the server's record of it. XMLHttpRequest, because fetch tells no upload progress.
function put(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/upload/${encodeURIComponent(file.name)}`);
    request.responseType = "json";
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onload = () =>
      request.status === 201 ? resolve(request.response) : reject(new ServerError(request.status, request.response));
    request.onerror = () => reject(new ServerError(0, { error: text.interrupted }));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

// ---- Telling the person

const say = (message) => (byId("status").textContent = message);

// One line at the top of the page: of what failed, or news. With `again`, its button repeats what failed.
function notify(message, again, news = false) {
  byId("notice").classList.toggle("news", news);
  byId("notice-text").textContent = message;
  byId("notice-button").textContent = again ? text.tryAgain : text.dismiss;
  byId("notice-button").onclick = () => {
    byId("notice").hidden = true;
    again?.();
  };
  byId("notice").hidden = false;
}

const report = (error, again) => (error.status === 401 ? endSession() : notify(error.message, again));

// Asks in a dialog; the promise holds true only for an explicit yes.
function ask(title, detail, yes) {
  const dialog = byId("ask");
  byId("ask-title").textContent = title;
  byId("ask-detail").textContent = detail;
  byId("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => (dialog.onclose = () => resolve(dialog.returnValue === "yes")));
}

// ---- The queue: items are waiting, sending, done or failed

let queue = [];
let announced = 0; // quarters of the whole of which a screen reader was told

const inState = (...states) => queue.filter((item) => states.includes(item.state));
const unfinished = () => inState("waiting", "sending");

function newRow(template, name) {
  const row = byId(template).content.firstElementChild.cloneNode(true);
  const extension = /\.(\w{1,4})$/.exec(name);
  part(row, "tile").textContent = extension ? extension[1].toUpperCase() : "";
  part(row, "name").textContent = name;
  return row;
}

function label(element, words) {
  element.setAttribute("aria-label", words);
  element.title = words;
}

function enqueue(files) {
  for (const file of files) {
    const row = newRow("queue-row", file.name);
    const item = { file, row, state: "waiting", loaded: 0, rate: 0 };
    part(row, "progress").setAttribute("aria-label", file.name);
    part(row, "retry").textContent = text.retry;
    part(row, "retry").setAttribute("aria-label", text.retryLabel(file.name));
    part(row, "retry").addEventListener("click", () => retry([item]));
    part(row, "cancel").addEventListener("click", () => cancel([item]));
    queue.push(item);
    byId("queue-list").append(row);
    drawItem(item);
  }
  pump();
}

// Starts what may start. Called after every change of the queue.
function pump() {
  const free = loggedIn ? AT_ONCE - inState("sending").length : 0;
  for (const item of inState("waiting").slice(0, free)) send(item);
  drawQueue();
}

async function send(item) {
  const stop = new AbortController();
  const now = performance.now();
  const moved = (loaded) => Object.assign(item, { loaded, moved: performance.now() });
  Object.assign(item, { state: "sending", rate: 0, started: now, moved: now, sample: { time: now, loaded: 0 }, stop });
  drawItem(item);
  try {
    const stored = await put(item.file, moved, stop.signal);
    Object.assign(item, { state: "done", loaded: item.file.size, id: stored.id });
    if (item.row.contains(document.activeElement)) byId("choose").focus({ preventScroll: true });
    say(text.uploaded(item.file.name));
    refreshSoon();
  } catch (error) {
    if (stop.signal.aborted) return; // `discard` has taken it off the queue
    Object.assign(item, { state: error.status === 401 ? "waiting" : "failed", loaded: 0, reason: error.message });
    if (error.status === 401) endSession();
    else say(`${item.file.name}. ${text.failed(item.reason)}`);
  }
  drawItem(item);
  pump();
}

function retry(items) {
  for (const item of items) drawItem(Object.assign(item, { state: "waiting" }));
  part(items[0].row, "cancel").focus();
  pump();
}

function discard(items) {
  queue = queue.filter((item) => !items.includes(item));
  for (const item of items) {
    item.stop?.abort();
    item.row.remove();
  }
  pump();
}

function cancel(items) {
  const next = items[0].row.nextElementSibling ?? items[0].row.previousElementSibling;
  discard(items);
  (next?.isConnected ? part(next, "cancel") : byId("choose")).focus();
  say(items.map((item) => text.cancelled(item.file.name)).join(" "));
}

// Measures each upload's rate, on a clock of its own so that a stalled connection shows as one.
function tick() {
  const now = performance.now();
  const sending = inState("sending");
  for (const item of sending) {
    const elapsed = now - item.sample.time;
    if (elapsed < TICK / 2) continue; // it has only just begun
    const rate = ((item.loaded - item.sample.loaded) * 1000) / elapsed;
    const weight = item.rate === 0 ? 1 : 1 - Math.exp(-elapsed / RATE_MEMORY);
    item.rate = now - item.moved > STALLED ? 0 : item.rate + (rate - item.rate) * weight;
    item.sample = { time: now, loaded: item.loaded };
    drawItem(item);
  }
  if (sending.length) drawQueue();
}

function detail(item) {
  const size = bytes(item.file.size);
  if (item.state === "failed") return text.failed(item.reason);
  if (item.state !== "sending") return line([size, text[item.state]]);
  if (item.loaded >= item.file.size) return line([size, text.saving]);
  const words = [text.sent(bytes(item.loaded), size)];
  const now = performance.now();
  if (now - item.moved > STALLED) words.push(text.stalled);
  else if (item.rate > 0 && now - item.started > 1000)
    words.push(text.rate(bytes(item.rate)), text.timeLeft(duration((item.file.size - item.loaded) / item.rate)));
  return line(words);
}

function drawItem(item) {
  const { row, file, state } = item;
  row.dataset.state = state;
  part(row, "progress").hidden = state === "failed";
  part(row, "progress").value = file.size ? item.loaded / file.size : Number(state === "done");
  part(row, "detail").textContent = detail(item);
  part(row, "retry").hidden = state !== "failed";
  part(row, "cancel").hidden = state === "done";
  label(part(row, "cancel"), state === "failed" ? text.remove(file.name) : text.cancel(file.name));
}

function drawQueue() {
  const counted = inState("waiting", "sending", "done");
  const total = sum(counted.map((item) => item.file.size));
  const sent = sum(counted.map((item) => item.loaded));
  const rate = sum(inState("sending").map((item) => item.rate));
  const busy = unfinished().length > 0;
  const percent = (total ? sent / total : 1).toLocaleString(locale, { style: "percent" });
  const words = [text.doneOf(inState("done").length, text.files(counted.length)), text.sent(bytes(sent), bytes(total))];
  if (rate > 0 && sent < total) words.push(text.timeLeft(duration((total - sent) / rate)));
  byId("queue-summary").textContent = line(words);
  byId("queue-summary").hidden = counted.length < 2;
  byId("queue").hidden = queue.length === 0;
  byId("retry-all").hidden = inState("failed").length < 2;
  byId("cancel-all").hidden = unfinished().length < 2;
  document.title = busy ? `${percent} · ${text.title}` : text.title;

  const quarter = busy && total ? Math.floor((sent / total) * 4) : 0;
  if (quarter > announced && quarter < 4) say(text.progress(percent));
  announced = quarter;
}

// ---- The files that are stored

let refreshes = 0;
let refreshTimer = 0;

// Reads the list anew. Uploads that were done before it was read leave the queue: the list shows them from now on.
async function refresh() {
  refreshes += 1;
  const turn = refreshes;
  const done = inState("done");
  const { uploads } = await call("GET", "/uploads");
  if (turn !== refreshes) return; // a later answer is on its way
  drawFiles(uploads, new Set(done.map((item) => item.id)));
  for (const item of done) item.row.remove();
  if (unfinished().length === 0) queue = queue.filter((item) => !done.includes(item));
  drawQueue();
}

// Once for a burst of changes, when it is over.
function refreshSoon() {
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(() => refresh().catch((error) => report(error, refreshSoon)), TICK);
}

const rowId = (file) => `file-${file.id}`;

function drawFiles(files, fresh) {
  const list = byId("files-list");
  const kept = new Set(files.map(rowId));
  for (const row of [...list.children]) if (!kept.has(row.id)) row.remove();
  files.forEach((file, place) => {
    const row = byId(rowId(file)) ?? fileRow(file, fresh.has(file.id));
    const there = list.children[place] ?? null;
    if (there !== row) list.insertBefore(row, there); // moves no row that stands right: it may hold the focus
  });
  const size = bytes(sum(files.map((file) => file.size)));
  byId("files-summary").textContent = files.length ? line([text.files(files.length), size]) : "";
  byId("files-empty").hidden = files.length > 0;
  byId("search").hidden = files.length <= SEARCH_FROM;
  search();
}

// Shows the files whose names have what is searched for; all of them while the field is not there.
function search() {
  const wanted = byId("search").hidden ? "" : byId("search").value.trim().toLowerCase();
  const rows = [...byId("files-list").children];
  for (const row of rows) row.hidden = !part(row, "name").textContent.toLowerCase().includes(wanted);
  byId("files-none").hidden = rows.length === 0 || rows.some((row) => !row.hidden);
}

function fileRow(file, fresh) {
  const row = newRow("file-row", file.name);
  const time = new Date(file.created_at);
  row.id = rowId(file);
  row.classList.toggle("fresh", fresh);
  part(row, "size").textContent = bytes(file.size);
  part(row, "time").dateTime = time.toISOString();
  const year = time.getFullYear() === new Date().getFullYear() ? undefined : "numeric"; // this year goes without saying
  const style = { day: "numeric", month: "short", year, hour: "2-digit", minute: "2-digit" };
  part(row, "time").textContent = time.toLocaleString(locale, style);
  part(row, "digest").hidden = !file.sha256;
  part(row, "sha256").textContent = file.sha256 ?? "";
  if (THUMBNAIL.test(file.name) && file.size <= THUMBNAIL_SIZE) part(row, "tile").replaceChildren(thumbnail(file));
  label(part(row, "share"), text.share(file.name));
  part(row, "share").addEventListener("click", () => share(file));
  part(row, "download").href = file.url;
  part(row, "download").download = file.name;
  label(part(row, "download"), text.download(file.name));
  label(part(row, "delete"), text.delete(file.name));
  part(row, "delete").addEventListener("click", () => remove(file, row));
  return row;
}

function thumbnail(file) {
  const image = new Image(44, 44);
  image.loading = "lazy";
  image.alt = "";
  image.src = `${file.url}?inline=1`;
  return image;
}

// Makes a link for people without an account, and copies it; shows it where the browser does not let a page copy.
async function share(file) {
  try {
    const link = await call("POST", `${file.url}/link`);
    const url = new URL(link.url, location.href).href;
    const until = new Date(link.expires * 1000).toLocaleDateString(locale, { dateStyle: "long" });
    const copied = await navigator.clipboard?.writeText(url).then(() => true, () => false);
    notify(copied ? text.linkCopied(file.name, until) : text.linkMade(url, until), undefined, true);
  } catch (error) {
    report(error, () => share(file));
  }
}

async function remove(file, row) {
  if (!(await ask(text.deleteTitle(file.name), text.deleteDetail, text.deleteYes))) return;
  try {
    await call("DELETE", `/uploads/${encodeURIComponent(file.id)}`);
  } catch (error) {
    if (error.status !== 404) return report(error); // 404: it was gone already
  }
  const next = row.nextElementSibling ?? row.previousElementSibling;
  row.remove(); // the rest of the list is brought up to date by the refresh
  (next ? part(next, "delete") : byId("files-title")).focus();
  say(text.deleted(file.name));
  refreshSoon();
}

// ---- The session

let loggedIn = false;
let user = ""; // who logged in on this page last
let invitation = ""; // the token of a link to choose a password by, until that is done

const endSession = () => loggedIn && showLogin(text.sessionEnded);

function setLoggedIn(on) {
  loggedIn = on;
  byId("notice").hidden = true;
  byId("login").hidden = on;
  for (const id of ["app", "logout"]) byId(id).hidden = !on;
}

// Shows the files, or the login form when there is no session.
async function enter(hint) {
  try {
    await refresh();
  } catch (error) {
    if (error.status === 401) showLogin(hint);
    else notify(error.message, () => enter(hint));
    return;
  }
  setLoggedIn(true);
  pump();
}

// The form asks for name and password; of who has been invited, for a new password only.
function showLogin(hint) {
  setLoggedIn(false);
  for (const id of ["user", "user-label", "no-account"]) byId(id).hidden = Boolean(invitation);
  byId("user").required = !invitation;
  byId("password").autocomplete = invitation ? "new-password" : "current-password";
  byId("password").minLength = invitation ? 8 : 0;
  byId("login-title").textContent = invitation ? text.inviteTitle : text.loginTitle;
  byId("login-button").textContent = invitation ? text.inviteChoose : text.logIn;
  byId("ask").close();
  byId("login-hint").textContent = hint;
  byId("login-error").textContent = "";
  byId("password").value = "";
  byId(byId("user").value || invitation ? "password" : "user").focus();
}

function forget() {
  discard(queue);
  refreshes += 1; // an answer still on its way is not for the next person
  drawFiles([], new Set());
}

async function logIn(event) {
  event.preventDefault();
  const password = byId("password").value;
  const proof = invitation ? { invitation, password } : { user: byId("user").value.trim(), password };
  byId("login-error").textContent = "";
  byId("login-button").disabled = true;
  try {
    const { user: name } = await call("POST", "/login", proof);
    if (user && user !== name) forget(); // one person's files never go into another's account
    byId("user").value = user = name;
    invitation = "";
    await enter(text.noCookie);
    if (loggedIn) byId("choose").focus();
  } catch (error) {
    byId("login-error").textContent = error.message;
    byId("password").select();
  } finally {
    byId("login-button").disabled = false;
  }
}

async function logOut() {
  const left = unfinished().length;
  if (left && !(await ask(text.logOutTitle, text.logOutDetail(text.files(left)), text.logOut))) return;
  try {
    await call("POST", "/logout");
  } catch (error) {
    if (error.status !== 401) return report(error, logOut);
  }
  forget();
  showLogin(text.loginHint);
}

// ---- Start

function filesOf(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const files = items.filter((item) => !item.webkitGetAsEntry?.()?.isDirectory);
  if (files.length < items.length) notify(text.foldersLeftOut);
  return files.map((item) => item.getAsFile());
}

function listen() {
  const over = (on) => byId("drop").classList.toggle("over", on);
  const onFileDrag = (type, action) => addEventListener(type, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault(); // a drop must never make the browser open the file in place of the page
    action(event);
  });
  byId("login").addEventListener("submit", logIn);
  byId("logout").addEventListener("click", logOut);
  byId("search").addEventListener("input", search);
  byId("drop").addEventListener("click", () => byId("picker").click());
  byId("picker").addEventListener("change", () => {
    enqueue([...byId("picker").files]);
    byId("picker").value = ""; // so that the same file can be chosen again
  });
  byId("retry-all").addEventListener("click", () => retry(inState("failed")));
  byId("cancel-all").addEventListener("click", () => cancel(unfinished()));
  onFileDrag("dragover", () => over(loggedIn));
  onFileDrag("dragleave", (event) => over(event.relatedTarget !== null && loggedIn)); // null: it has left the window
  onFileDrag("drop", (event) => {
    over(false);
    if (loggedIn) enqueue(filesOf(event.dataTransfer));
  });
  addEventListener("beforeunload", (event) => unfinished().length && event.preventDefault());
}

document.documentElement.lang = locale;
document.title = text.title;
for (const element of document.querySelectorAll("[data-text]")) element.textContent = text[element.dataset.text];
byId("drop").setAttribute("aria-label", text.addFiles);
byId("search").setAttribute("aria-label", text.search);
byId("search").placeholder = text.search;
listen();
setInterval(tick, TICK);
if (location.hash.startsWith("#invitation=")) {
  invitation = location.hash.slice("#invitation=".length);
  history.replaceState(null, "", location.pathname); // lest it is bookmarked, or read over a shoulder
  showLogin(text.inviteHint);
} else enter(text.loginHint);
