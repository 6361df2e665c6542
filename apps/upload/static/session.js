// Who is logged in, and the form to log in by.
//
// Other parts listen: "open" is for a session that has begun, "close" for one that has ended (uploads wait for the next
// one), "forget" for one that is over for good: what the page holds is not for whoever comes next.

import { byId, notify } from "./dom.js";
import { call } from "./server.js";
import { text } from "./text.js";

export const session = Object.assign(new EventTarget(), { open: false, user: "" });

let invitation = ""; // the token of a link to choose a password by, until that is done

const tell = (what) => session.dispatchEvent(new Event(what));

// What failed, at the top of the page; or the form to log in, if that is what it needs.
export function report(error, again) {
  if (error.status !== 401) notify(error.message, { again });
  else if (session.open) close(text("sessionEnded"));
}

// Opens the session that the browser has; else shows the form, with that hint.
async function enter(hint) {
  try {
    const { user } = await call("GET", "/session");
    if (user === null) return close(hint);
    if (session.user && session.user !== user) tell("forget");
    session.user = byId("user").value = user;
  } catch (error) {
    return notify(error.message, { again: () => enter(hint) });
  }
  setOpen(true);
  tell("open");
}

function setOpen(open) {
  session.open = open;
  byId("notice").hidden = true;
  byId("login").hidden = open;
  for (const id of ["views", "logout"]) byId(id).hidden = !open;
}

// Shows the form. It asks for name and password; of who has been invited, for a new password only.
function close(hint) {
  setOpen(false);
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  for (const id of ["user", "user-label", "no-account"]) byId(id).hidden = Boolean(invitation);
  byId("user").required = !invitation;
  byId("password").autocomplete = invitation ? "new-password" : "current-password";
  byId("password").minLength = invitation ? 8 : 0;
  byId("login-title").textContent = text(invitation ? "inviteTitle" : "loginTitle");
  byId("login-button").textContent = text(invitation ? "inviteChoose" : "logIn");
  byId("login-hint").textContent = hint;
  byId("login-error").textContent = "";
  byId("password").value = "";
  byId(byId("user").value || invitation ? "password" : "user").focus();
  tell("close");
}

async function logIn(event) {
  event.preventDefault();
  const password = byId("password").value;
  byId("login-error").textContent = "";
  byId("login-button").disabled = true;
  try {
    await call("POST", "/login", invitation ? { invitation, password } : { user: byId("user").value.trim(), password });
    invitation = "";
    await enter(text("noCookie"));
  } catch (error) {
    byId("login-error").textContent = error.message;
    byId("password").select();
  } finally {
    byId("login-button").disabled = false;
  }
  if (session.open) byId("choose").focus();
}

export async function logOut(everywhere = false) {
  try {
    await call("POST", everywhere ? "/logout?everywhere=1" : "/logout");
  } catch (error) {
    if (error.status !== 401) return report(error, () => logOut(everywhere));
  }
  tell("forget");
  close(text("loginHint"));
}

export function startSession() {
  byId("login").addEventListener("submit", logIn);
  if (location.hash.startsWith("#invitation=")) {
    invitation = location.hash.slice("#invitation=".length);
    history.replaceState(null, "", location.pathname); // lest it is bookmarked, or read over a shoulder
    close(text("inviteHint"));
  } else enter(text("loginHint"));
}
