// What the browser remembers of uploads that are not finished: in IndexedDB, so that it outlives the page.
//
// A record is { url, user, name, size, lastModified, handle }. A handle, of a file that was dropped on a browser which
// gives them, lets the page read the file again; else its reader has to choose it once more. Where the browser keeps
// nothing (a private window, say), uploads work, but do not outlive the page.
//
// An upload belongs to one tab at a time, by a lock of its URL (Web Locks; only where the page came by TLS or from this
// machine): two tabs that both send it would take it from each other again and again.

const opened = new Promise((resolve) => {
  const request = indexedDB.open("uploads", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("unfinished", { keyPath: "url" });
  request.onsuccess = () => resolve(request.result);
  request.onerror = request.onblocked = () => resolve(null);
}).catch(() => null);

// The result of what `action` does with the table; undefined if that cannot be done.
async function inTable(mode, action) {
  const database = await opened;
  return new Promise((resolve) => {
    try {
      const request = action(database.transaction("unfinished", mode).objectStore("unfinished"));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(undefined);
    } catch {
      resolve(undefined);
    }
  });
}

export const forgetUpload = (url) => inTable("readwrite", (table) => table.delete(url));
export const remembered = (url) => inTable("readonly", (table) => table.get(url));

export async function rememberedOf(user) {
  const records = (await inTable("readonly", (table) => table.getAll())) ?? [];
  return records.filter((record) => record.user === user);
}

export const remember = (record) => inTable("readwrite", (table) => table.put(record));

// Is it the file that a record is of? A file that was changed since is another one.
export const isOf = (file, record) =>
  file.name === record.name && file.size === record.size && file.lastModified === record.lastModified;

// The file of a record, if it can be had without choosing it again. With `mayAsk`, the browser may ask its user.
export async function fileOf({ handle, ...record }, mayAsk) {
  try {
    const permission = await handle[mayAsk ? "requestPermission" : "queryPermission"]({ mode: "read" });
    const file = permission === "granted" ? await handle.getFile() : null;
    return file && isOf(file, record) ? file : null;
  } catch {
    return null; // there is no handle, or no file any more
  }
}

const releases = new Map();

// Resolves when no other tab has the upload; from then on it is this one's, until `release`.
export function claim(url) {
  if (!navigator.locks || releases.has(url)) return Promise.resolve();
  return new Promise((resolve) => {
    const held = () => new Promise((release) => resolve(releases.set(url, release)));
    navigator.locks.request(url, held).catch(resolve);
  });
}

export function release(url) {
  releases.get(url)?.();
  releases.delete(url);
}
