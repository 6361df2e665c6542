// The page of the upload app: log in, send files, fetch or delete what is stored.
//
// | module                 | what it has                                              |
// |------------------------|----------------------------------------------------------|
// | text.js, dom.js        | words and figures; small things done with the document   |
// | server.js, tus.js      | requests; the protocol by which uploads resume           |
// | session.js             | who is logged in                                         |
// | queue.js, memory.js    | uploads, and what is remembered of them from page to page |
// | files.js, account.js   | the two views                                            |

import { showAccount, startAccount } from "./account.js";
import { ask, byId, notify } from "./dom.js";
import { refreshSoon, startFiles } from "./files.js";
import { cancel, cancellable, enqueue, startQueue, underWay } from "./queue.js";
import { logOut, session, startSession } from "./session.js";
import { text } from "./text.js";

// ---- Files come in

// The files of a drop. All must be asked for before anything is waited for.
function filesOf(transfer) {
  const dropped = [...transfer.items].filter((item) => item.kind === "file");
  const plain = dropped.filter((item) => !item.webkitGetAsEntry?.()?.isDirectory);
  if (plain.length < dropped.length) notify(text("foldersLeftOut"));
  return plain.map((item) => ({
    file: item.getAsFile(),
    handle: item.getAsFileSystemHandle?.().catch(() => undefined),
  }));
}

function listenForFiles() {
  const over = (on) => byId("drop").classList.toggle("over", on);
  const onFileDrag = (type, action) => addEventListener(type, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault(); // a drop must never make the browser open the file in place of the page
    action(event);
  });
  byId("drop").addEventListener("click", () => byId("picker").click());
  byId("picker").addEventListener("change", () => {
    enqueue([...byId("picker").files].map((file) => ({ file })));
    byId("picker").value = ""; // so that the same file can be chosen again
  });
  onFileDrag("dragover", () => over(session.open));
  onFileDrag("dragleave", (event) => over(event.relatedTarget !== null && session.open)); // null: it left the window
  onFileDrag("drop", (event) => {
    over(false);
    if (!session.open) return;
    if (location.hash) location.hash = "";
    enqueue(filesOf(event.dataTransfer));
  });
}

// ---- Views: the address says which

function showView() {
  const account = location.hash === "#account";
  byId("files-view").hidden = account || !session.open;
  byId("account-view").hidden = !account || !session.open;
  for (const [id, on] of [["to-files", !account], ["to-account", account]])
    byId(id).setAttribute("aria-current", on ? "page" : "false");
  showAccount(account && session.open);
}

function listenForViews() {
  addEventListener("hashchange", () => {
    showView();
    if (session.open) byId(location.hash === "#account" ? "account-title" : "files-title").focus();
  });
  session.addEventListener("open", showView);
  session.addEventListener("close", showView);
}

// ---- What needs a question first

async function leave() {
  const count = underWay().length;
  if (count && !(await ask(text("logOutTitle"), text("logOutDetail", { count }), text("logOut")))) return;
  await logOut();
}

async function cancelAll() {
  const those = cancellable();
  const detail = text("cancelAllDetail", { count: those.length });
  if (await ask(text("cancelAllTitle"), detail, text("cancelAllYes"))) cancel(cancellable());
}

byId("logout").addEventListener("click", leave);
byId("cancel-all").addEventListener("click", cancelAll);
listenForFiles();
listenForViews();
startQueue(refreshSoon);
startFiles();
startAccount();
startSession();
