// How the queue is shown: a row for each upload, and a line for all of them.

import { byId, label, newFileRow, part, say } from "./dom.js";
import { bytes, duration, line, percent, text } from "./text.js";

const STALLED = 5000; // milliseconds without progress after which an upload is called stalled
const PICTURE = /\.(png|jpe?g|gif|webp|avif)$/i;
const PICTURE_SIZE = 20e6; // bytes: a larger image is not decoded for its picture
const SIDE = 88; // pixels of a picture: twice what a tile has, for screens of high density

let announced = 0; // quarters of the whole of which a screen reader was told

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

export function newItemRow(item, { pause, resume, retry, cancel }) {
  const row = newFileRow("queue-row", item.name);
  const actions = { pause, resume, retry };
  part(row, "progress").setAttribute("aria-label", item.name);
  part(row, "toggle").addEventListener("click", () => actions[part(row, "toggle").dataset.action](item));
  part(row, "cancel").addEventListener("click", () => cancel(item));
  return row;
}

// What the row's first button does.
function actionOf({ state, trouble }) {
  if (state === "failed" || (state === "sending" && trouble)) return "retry";
  return state === "paused" || state === "unfinished" ? "resume" : "pause";
}

function cancelText({ state, name }) {
  if (state === "unfinished") return text("discardFile", { name });
  return text(state === "failed" ? "removeFile" : "cancelFile", { name });
}

export function drawItem(item) {
  const { row, name, size, state, loaded } = item;
  const action = actionOf(item);
  const toggle = part(row, "toggle");
  row.dataset.state = state;
  row.toggleAttribute("data-trouble", Boolean(item.trouble));
  part(row, "progress").hidden = state === "failed";
  part(row, "progress").value = size ? loaded / size : Number(state === "done");
  part(row, "detail").textContent = detail(item);
  part(row, "hint").hidden = state !== "unfinished";
  toggle.hidden = part(row, "cancel").hidden = state === "done";
  label(part(row, "cancel"), cancelText(item));
  if (toggle.dataset.action === action) return;
  toggle.dataset.action = action;
  toggle.querySelector("use").setAttribute("href", `#icon-${action}`);
  label(toggle, text(`${action}File`, { name }));
}

function detail({ size, loaded, rate, state, trouble, again, moved, started }) {
  const now = performance.now();
  const sent = text("sent", { sent: bytes(loaded), size: bytes(size) });
  if (state === "failed") return text("failed", { reason: trouble });
  if (state === "waiting" || state === "done") return line([bytes(size), text(state)]);
  if (state === "paused" || state === "unfinished") return line([sent, trouble || text(state)]);
  if (trouble) {
    const time = duration(Math.max((again - now) / 1000, 1));
    return again ? text("nextTry", { reason: trouble, time }) : text("tryingNow", { reason: trouble });
  }
  if (loaded >= size) return line([bytes(size), text("saving")]);
  if (now - moved > STALLED) return line([sent, text("stalled")]);
  if (rate === 0 || now - started < 1000) return sent;
  const time = duration((size - loaded) / rate);
  return line([sent, text("rate", { size: bytes(rate) }), text("timeLeft", { time })]);
}

export function drawQueue(items) {
  const inState = (...states) => items.filter((item) => states.includes(item.state));
  const counted = inState("waiting", "sending", "paused", "done");
  const [total, sent] = [sum(counted.map((item) => item.size)), sum(counted.map((item) => item.loaded))];
  const busy = inState("waiting", "sending");
  byId("queue").hidden = items.length === 0;
  byId("queue-summary").hidden = counted.length < 2;
  byId("queue-summary").textContent = summary(counted, sent, total);
  byId("pause-all").hidden = busy.length < 2;
  byId("resume-all").hidden = inState("paused").length < 2;
  byId("retry-all").hidden = inState("failed").length < 2;
  byId("cancel-all").hidden = items.length - inState("done").length < 2;
  tellProgress(busy.length > 0, total ? sent / total : 1);
}

function summary(counted, sent, total) {
  const done = counted.filter((item) => item.state === "done").length;
  const rate = sum(counted.map((item) => (item.state === "sending" ? item.rate : 0)));
  const words = [
    text("doneOf", { done, count: counted.length }),
    text("sent", { sent: bytes(sent), size: bytes(total) }),
  ];
  if (rate > 0 && sent < total) words.push(text("timeLeft", { time: duration((total - sent) / rate) }));
  return line(words);
}

// In the title, and in a quarter's steps to who listens instead of looking.
function tellProgress(busy, whole) {
  document.title = busy ? `${percent(whole)} · ${text("title")}` : text("title");
  const quarter = busy ? Math.floor(whole * 4) : 0;
  if (quarter > announced && quarter < 4) say(text("progress", { percent: percent(whole) }));
  announced = quarter;
}

// A picture of an image, in the row's tile. It is made here: the server does not have the file yet.
export async function showPicture({ name, file, row }) {
  const tile = part(row, "tile");
  if (!PICTURE.test(name) || file.size > PICTURE_SIZE || tile.firstElementChild) return;
  const image = await createImageBitmap(file, { resizeHeight: SIDE }).catch(() => null); // null: it is no image
  if (!image) return;
  const canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  const scale = Math.max(SIDE / image.width, SIDE / image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  canvas.getContext("2d").drawImage(image, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  image.close();
  tile.replaceChildren(canvas);
}
