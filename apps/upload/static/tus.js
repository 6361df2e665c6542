// A client of tus 1.0.0 (https://tus.io/protocols/resumable-upload): as much of it as one upload after the other needs.
//
// An upload is made without data, so that its URL is known before a byte is sent; asked how far it has come; and
// continued from there. Whatever breaks, nothing is sent twice and no file is stored twice. XMLHttpRequest, because
// fetch tells no progress.

import { ServerError } from "./server.js";

const ENDPOINT = "/files/";
const PIECE = 64 << 20; // bytes of one request: what a proxy that keeps requests back can lose
const SILENCE = 30_000; // milliseconds in which something must be sent, or answered
const SAVING = 120_000; // milliseconds for the answer after the last byte: the disk may be slow

// Sends what the server does not have of a file, to `url` or, without one, to a new upload. Tells `began` its URL and
// `moved` how many bytes have gone. The promise holds the upload's id. `ServerError`: of status 0, it can go on later;
// of status 404, there is no such upload (any more).
export async function upload(file, url, { began, moved, signal }) {
  let offset = 0;
  if (url) offset = await offsetOf(url, signal);
  else await began((url = await create(file, signal)));
  moved(offset);
  while (offset < file.size) {
    const piece = file.slice(offset, offset + PIECE);
    const sent = (count) => moved(offset + count);
    const headers = { "Upload-Offset": offset, "Content-Type": "application/offset+octet-stream" };
    offset = offsetIn(await ask("PATCH", url, headers, { body: piece, sent, signal }));
  }
  return url.split("/").pop();
}

// Makes the server forget an upload that is not whole.
export const terminate = (url) => ask("DELETE", url, {}, {});

export const offsetOf = async (url, signal) => offsetIn(await ask("HEAD", url, {}, { signal }));

async function create(file, signal) {
  const name = btoa(String.fromCharCode(...new TextEncoder().encode(file.name)));
  const headers = { "Upload-Length": file.size, "Upload-Metadata": `filename ${name}` };
  const request = await ask("POST", ENDPOINT, headers, { signal });
  return new URL(request.getResponseHeader("Location"), location.href).pathname;
}

const offsetIn = (request) => Number(request.getResponseHeader("Upload-Offset"));

function ask(method, url, headers, { body, sent, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let timer = 0;
    const expectWithin = (time) => {
      clearTimeout(timer);
      timer = setTimeout(() => request.abort(), time);
    };
    const settle = (action) => () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      action();
    };
    const stop = () => request.abort();
    const failed = () => reject(signal?.aborted ? signal.reason : new ServerError(0));
    request.open(method, url);
    request.setRequestHeader("Tus-Resumable", "1.0.0");
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => {
      expectWithin(SILENCE);
      sent?.(event.loaded);
    };
    request.upload.onload = () => expectWithin(SAVING);
    request.onload = settle(() => (request.status < 300 ? resolve(request) : reject(refusal(request))));
    request.onerror = request.onabort = settle(failed);
    signal?.throwIfAborted();
    signal?.addEventListener("abort", stop);
    expectWithin(SILENCE);
    request.send(body ?? null);
  });
}

function refusal(request) {
  let answer = null;
  try {
    answer = JSON.parse(request.responseText);
  } catch {
    // not from our server, or an answer to HEAD, which has no body
  }
  return new ServerError(request.status, answer, Number(request.getResponseHeader("Retry-After")));
}
