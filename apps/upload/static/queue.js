// The queue: the files that this page sends, and those that an earlier one left unfinished.
//
// | state      | what it waits for                                                                      |
// |------------|----------------------------------------------------------------------------------------|
// | waiting    | its turn, or a session                                                                 |
// | sending    | the server; when the connection is lost, the time to try again (`again`, `trouble`)    |
// | paused     | its user, who paused it or goes on with it in another tab                              |
// | unfinished | its file: the page that began it is gone                                               |
// | failed     | its user: the server refused it, or the file cannot be read                            |
// | done       | the list of files, to show it                                                          |
//
// The queue survives the end of a session: what was refused with 401 waits and goes on after the next login. State is
// kept here and drawn (queue-view.js); it is never read back from the document.

import { byId, notify, part, say } from "./dom.js";
import { claim, fileOf, forgetUpload, isOf, release, remember, remembered, rememberedOf } from "./memory.js";
import { drawItem, drawQueue, newItemRow, showPicture } from "./queue-view.js";
import { report, session } from "./session.js";
import { text } from "./text.js";
import { offsetOf, terminate, upload } from "./tus.js";

const AT_ONCE = 3; // uploads under way at the same time
const TICK = 250; // milliseconds between two drawings of the progress
const RATE_MEMORY = 3000; // milliseconds after which an old rate counts for about a third
const LONGEST_WAIT = 30; // seconds between two attempts to get through

const PASSING = [0, 408, 409, 423, 429, 502, 503, 504]; // statuses after which the same request may succeed
const TAKEN_OVER = "another request has taken the upload over";

let items = [];
let refresh = () => {}; // reads the list of files anew

const inState = (...states) => items.filter((item) => states.includes(item.state));

export const underWay = () => inState("waiting", "sending");
export const doneItems = () => inState("done");

function draw() {
  drawQueue(items);
}

function change(item, changes) {
  drawItem(Object.assign(item, changes));
}

function add(item) {
  Object.assign(item, { loaded: 0, farthest: 0, rate: 0, failures: 0, trouble: "", again: 0 });
  item.row = newItemRow(item, { pause, resume, retry, cancel: (it) => cancel([it]) });
  items.push(item);
  byId("queue-list").append(item.row);
  drawItem(item);
}

// Takes files, each with a promise of its handle if the browser has one. A file that is in the queue goes on.
export function enqueue(files) {
  for (const { file, handle } of files) {
    const there = inState("unfinished", "paused", "failed").find((item) => isOf(file, item));
    if (there) goOn(there, file);
    else add({ state: "waiting", name: file.name, size: file.size, lastModified: file.lastModified, file, handle });
  }
  pump();
}

// Starts what may start. Called after every change of the queue.
function pump() {
  const free = session.open ? AT_ONCE - inState("sending").length : 0;
  for (const item of inState("waiting").slice(0, free)) send(item);
  draw();
}

// ---- One upload

async function send(item) {
  const stop = new AbortController();
  const now = performance.now();
  change(item, { state: "sending", rate: 0, started: now, moved: now, sample: { time: now, loaded: item.loaded }, stop });
  showPicture(item);
  try {
    const id = await sendPersistently(item, stop.signal);
    change(item, { state: "done", loaded: item.size, id });
    letGo(item);
    if (item.row.contains(document.activeElement)) byId("choose").focus({ preventScroll: true });
    say(text("uploaded", { name: item.name }));
    refresh();
  } catch (error) {
    if (stop.signal.aborted) return; // paused or cancelled: who did that has seen to the rest
    if (error.status === 401) {
      change(item, { state: "waiting", trouble: "" });
      report(error);
    } else if (error.said === TAKEN_OVER) change(item, { state: "paused", trouble: text("elsewhere") });
    else {
      change(item, { state: "failed", trouble: error.message });
      say(`${item.name}. ${text("failed", { reason: error.message })}`);
    }
  }
  pump();
}

// Uploads until it is done, however often the connection breaks; the upload's id.
async function sendPersistently(item, signal) {
  const began = (url) => beginning(item, url);
  const moved = (loaded) => progressed(item, loaded);
  let anew = false;
  for (;;) {
    try {
      return await upload(item.file, item.url, { began, moved, signal });
    } catch (error) {
      signal.throwIfAborted();
      if (error.status === 404 && item.url && !anew) {
        letGo(item); // it has expired: from the beginning
        anew = true;
        continue;
      }
      if (error.status === 0 && !(await isReadable(item.file))) throw new Error(text("unreadable"));
      if (!PASSING.includes(error.status) || error.said === TAKEN_OVER) throw error;
      await waitAfter(error, item, signal);
    }
  }
}

async function beginning(item, url) {
  item.url = url;
  const { name, size, lastModified } = item;
  const handle = await item.handle;
  if (!items.includes(item)) return; // cancelled meanwhile
  await claim(url);
  await remember({ url, user: session.user, name, size, lastModified, handle });
}

function progressed(item, loaded) {
  if (loaded > item.farthest) Object.assign(item, { farthest: loaded, failures: 0 });
  Object.assign(item, { loaded, moved: performance.now(), trouble: "" });
}

// Waits twice as long after each failure, and not as long as others that failed at the same moment.
async function waitAfter(error, item, signal) {
  signal.throwIfAborted();
  const longest = Math.min(LONGEST_WAIT, 2 ** item.failures);
  const seconds = Math.max(error.wait, longest * (0.5 + Math.random() / 2));
  item.failures += 1;
  const trouble = text(error.status === 0 ? "lost" : "busy");
  if (item.failures === 1) say(trouble);
  change(item, { trouble, again: performance.now() + seconds * 1000, rate: 0 });
  await new Promise((resolve) => {
    item.wake = resolve;
    setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", resolve, { once: true });
  });
  item.again = 0;
  signal.throwIfAborted();
  drawItem(item);
}

const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

// The upload at its URL is nothing to this page any more, nor to later ones.
function letGo(item) {
  if (!item.url) return;
  forgetUpload(item.url);
  release(item.url);
  Object.assign(item, { url: null, farthest: 0 });
}

// ---- What its user does

function pause(item) {
  item.stop?.abort();
  change(item, { state: "paused", rate: 0, trouble: "" });
  pump();
}

function retry(item) {
  if (item.state === "sending") item.wake?.();
  else resume(item);
}

function resume(item) {
  if (item.file) goOn(item, item.file);
  else findFile(item);
}

function goOn(item, file) {
  if (item.state === "unfinished") say(text("resumes", { name: item.name }));
  change(item, { state: "waiting", trouble: "", file });
  pump();
}

async function findFile(item) {
  const file = await fileOf(item, true);
  if (file) return goOn(item, file);
  item.handle = undefined; // it leads nowhere: from now on its user is asked
  const picker = byId("resume-picker");
  picker.onchange = () => {
    const [picked] = picker.files;
    picker.value = "";
    if (isOf(picked, item)) goOn(item, picked);
    else notify(text("otherFile", { name: item.name }));
  };
  picker.click();
}

export function cancel(those) {
  const next = those[0].row.nextElementSibling ?? those[0].row.previousElementSibling;
  const words = those.map(({ state, name }) => text(state === "unfinished" ? "discarded" : "cancelled", { name }));
  for (const { url } of remove(those)) {
    if (!url) continue;
    forgetUpload(url);
    terminate(url).catch(() => {}); // the server removes it by itself if it cannot be told
  }
  pump();
  (next?.isConnected ? part(next, "cancel") : byId("choose")).focus();
  say(words.join(" "));
}

function remove(those) {
  items = items.filter((item) => !those.includes(item));
  for (const item of those) {
    item.stop?.abort();
    item.row.remove();
    if (item.url) release(item.url);
  }
  return those;
}

// For all of them at once.
const pauseAll = () => underWay().forEach(pause);
const resumeAll = () => inState("paused").forEach(resume);
const retryAll = () => inState("failed").forEach(retry);
export const cancellable = () => inState("waiting", "sending", "paused", "unfinished", "failed");

// ---- From one page to the next

// Shows what earlier pages left, once no other tab is at work on it; goes on with it where the file can be had.
async function recall() {
  const { user } = session;
  for (const record of await rememberedOf(user)) {
    if (items.some((item) => item.url === record.url)) continue;
    claim(record.url).then(async () => {
      const finished = !(await remembered(record.url)); // by the other tab
      if (finished) release(record.url);
      else if (session.user === user && !items.some((item) => item.url === record.url)) await show(record);
    });
  }
}

async function show(record) {
  const offset = navigator.locks ? await offsetOf(record.url).catch((error) => (error.status === 404 ? -1 : 0)) : 0;
  const file = await fileOf(record, false);
  if (offset < 0 || offset === record.size) {
    letGo({ url: record.url }); // it has expired; or it is done, and the page was gone before it knew
    return refresh();
  }
  const item = { state: "unfinished", ...record };
  add(item);
  change(item, { loaded: offset, farthest: offset });
  if (file) goOn(item, file);
  else draw();
}

// ---- The clock

// Measures each upload's rate, on a clock of its own so that a stalled connection shows as one.
function tick() {
  const now = performance.now();
  const sending = inState("sending");
  for (const item of sending) {
    const elapsed = now - item.sample.time;
    if (elapsed < TICK / 2) continue; // it has only just begun
    const rate = (Math.max(item.loaded - item.sample.loaded, 0) * 1000) / elapsed;
    const weight = item.rate === 0 ? 1 : 1 - Math.exp(-elapsed / RATE_MEMORY);
    item.rate = item.trouble ? 0 : item.rate + (rate - item.rate) * weight;
    item.sample = { time: now, loaded: item.loaded };
    drawItem(item);
  }
  if (sending.length) draw();
}

// Takes what the list of files shows now out of the queue. It is counted until all is done.
export function leaveQueue(those) {
  for (const item of those) item.row.remove();
  if (underWay().length === 0) items = items.filter((item) => !those.includes(item));
  draw();
}

export function startQueue(refreshSoon) {
  refresh = refreshSoon;
  byId("pause-all").addEventListener("click", pauseAll);
  byId("resume-all").addEventListener("click", resumeAll);
  byId("retry-all").addEventListener("click", retryAll);
  session.addEventListener("open", () => {
    recall();
    pump();
  });
  session.addEventListener("forget", () => {
    remove(items); // not from the server, nor from the memory: their user may come back
    draw();
  });
  addEventListener("online", () => inState("sending").forEach((item) => item.wake?.()));
  addEventListener("beforeunload", (event) => underWay().length && event.preventDefault());
  setInterval(tick, TICK);
}

