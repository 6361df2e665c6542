// The files that are stored. They are the server's to know: after a change the list is read anew.

import { ask, byId, copy, label, newFileRow, part, say } from "./dom.js";
import { doneItems, leaveQueue } from "./queue.js";
import { call } from "./server.js";
import { report, session } from "./session.js";
import { bytes, day, line, moment, text } from "./text.js";

const SOON = 250; // milliseconds after which a burst of changes counts as over
const SEARCH_FROM = 5; // files from which on there is a field to search them
const ROWS = 100; // shown at first, and more on demand
const THUMBNAIL = /\.(png|jpe?g|gif|webp|avif)$/i;
const THUMBNAIL_SIZE = 5e6; // bytes: a larger image is not fetched for its thumbnail
const DAY = 86400; // seconds

let files = []; // newest first
let rows = new Map(); // by the ids of files
let shown = ROWS;
let refreshes = 0;
let refreshTimer = 0;

// Reads the list anew. Uploads that were done before it was read leave the queue: the list shows them from now on.
async function refresh() {
  refreshes += 1;
  const turn = refreshes;
  const done = doneItems();
  const { uploads } = await call("GET", "/uploads");
  if (turn !== refreshes) return; // a later answer is on its way
  files = uploads;
  leaveQueue(done);
  draw(new Set(done.map((item) => item.id)));
}

// Once for a burst of changes, when it is over.
export function refreshSoon() {
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(() => refresh().catch((error) => report(error, refreshSoon)), SOON);
}

const plain = (words) => words.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase(); // é is found by e

function draw(fresh = new Set()) {
  byId("search").hidden = files.length <= SEARCH_FROM;
  const wanted = byId("search").hidden ? "" : plain(byId("search").value.trim());
  const found = files.filter((file) => plain(file.name).includes(wanted));
  const kept = new Map();
  for (const file of found.slice(0, shown)) kept.set(file.id, rows.get(file.id) ?? newRow(file, fresh.has(file.id)));
  for (const [id, row] of rows) if (!kept.has(id)) row.remove();
  rows = kept;
  placeRows([...rows.values()]);
  const size = bytes(found.reduce((total, file) => total + file.size, 0));
  byId("files-summary").textContent = found.length ? line([text("files", { count: found.length }), size]) : "";
  byId("files-empty").hidden = files.length > 0;
  byId("files-none").hidden = files.length === 0 || found.length > 0;
  byId("files-more").hidden = found.length <= shown;
  byId("files-more").textContent = text("showMore", { count: Math.min(ROWS, found.length - shown) });
  return found.length;
}

// Moves no row that stands right: it may hold the focus.
function placeRows(wanted) {
  const list = byId("files-list");
  wanted.forEach((row, place) => {
    const there = list.children[place] ?? null;
    if (there !== row) list.insertBefore(row, there);
  });
}

function search() {
  shown = ROWS;
  const count = draw();
  say(count ? text("found", { count }) : text("noneFound"));
}

function showMore() {
  const next = shown;
  shown += ROWS;
  draw();
  part(byId("files-list").children[next], "download").focus();
}

function newRow(file, fresh) {
  const row = newFileRow("file-row", file.name);
  const { name } = file;
  row.classList.toggle("fresh", fresh);
  part(row, "size").textContent = bytes(file.size);
  part(row, "time").dateTime = file.created_at;
  part(row, "time").textContent = moment(file.created_at);
  part(row, "digest").hidden = !file.sha256;
  part(row, "sha256").textContent = file.sha256 ?? "";
  if (THUMBNAIL.test(name) && file.size <= THUMBNAIL_SIZE) part(row, "tile").replaceChildren(thumbnail(file));
  part(row, "download").href = file.url;
  part(row, "download").download = name;
  label(part(row, "download"), text("downloadFile", { name }));
  label(part(row, "share"), text("shareFile", { name }));
  part(row, "share").addEventListener("click", () => share(file));
  label(part(row, "delete"), text("deleteFile", { name }));
  part(row, "delete").addEventListener("click", () => remove(file, row));
  return row;
}

// The server gives no other kind of file out to be shown than those that are harmless.
function thumbnail(file) {
  const image = new Image(44, 44);
  const extension = /\.(\w{1,4})$/.exec(file.name);
  image.loading = "lazy";
  image.alt = "";
  image.onerror = () => image.replaceWith(extension[1].toUpperCase()); // it only has the name of an image
  image.src = `${file.url}?inline=1`;
  return image;
}

// Makes a link for people without an account, for as long as is chosen in the dialog.
async function share(file) {
  const days = byId("share-days");
  const make = async () => {
    try {
      const { url, expires } = await call("POST", `${file.url}/link`, { seconds: Number(days.value) * DAY });
      byId("share-url").value = new URL(url, location.href).href;
      byId("share-told").textContent = text("until", { time: day(expires * 1000) });
    } catch (error) {
      byId("share").close();
      report(error, () => share(file));
    }
  };
  byId("share-title").textContent = text("shareTitle", { name: file.name });
  byId("share-url").value = byId("share-told").textContent = "";
  days.onchange = make;
  byId("share").showModal();
  await make();
}

async function remove(file, row) {
  const { name } = file;
  if (!(await ask(text("deleteTitle", { name }), text("deleteDetail"), text("deleteYes")))) return;
  try {
    await call("DELETE", file.url);
  } catch (error) {
    if (error.status !== 404) return report(error); // 404: it was gone already
  }
  const next = row.nextElementSibling ?? row.previousElementSibling;
  files = files.filter((other) => other !== file);
  draw();
  (next ? part(next, "delete") : byId("files-title")).focus();
  say(text("deleted", { name }));
  refreshSoon();
}

export function startFiles() {
  byId("search").addEventListener("input", search);
  byId("files-more").addEventListener("click", showMore);
  byId("share-copy").addEventListener("click", () => copy(byId("share-url"), byId("share-told")));
  session.addEventListener("open", () => refresh().catch((error) => report(error, refreshSoon)));
  session.addEventListener("forget", () => {
    refreshes += 1; // an answer still on its way is not for the next person
    byId("search").value = "";
    files = [];
    draw();
  });
}
