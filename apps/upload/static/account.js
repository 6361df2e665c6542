// The account of who is logged in: password, API tokens, sessions.

import { ask, byId, copy, label, newRow, part, say } from "./dom.js";
import { call } from "./server.js";
import { logOut, report, session } from "./session.js";
import { day, text } from "./text.js";

async function changePassword(event) {
  event.preventDefault();
  const form = byId("password-form");
  const told = byId("password-told");
  const { old, fresh } = form.elements;
  told.className = "error";
  told.textContent = "";
  byId("password-button").disabled = true;
  try {
    await call("POST", "/password", { old: old.value, new: fresh.value });
    form.reset();
    told.className = "";
    told.textContent = text("passwordChanged");
  } catch (error) {
    if (error.status === 401) return report(error);
    told.textContent = error.message;
    old.select();
  } finally {
    byId("password-button").disabled = false;
  }
}

function compare() {
  const { fresh, again } = byId("password-form").elements;
  again.setCustomValidity(fresh.value === again.value ? "" : text("notTheSame"));
}

// ---- API tokens

async function listTokens() {
  try {
    const { tokens } = await call("GET", "/tokens");
    byId("tokens").replaceChildren(...tokens.map(tokenRow));
    byId("tokens-none").hidden = tokens.length > 0;
  } catch (error) {
    report(error, listTokens);
  }
}

function tokenRow(token) {
  const row = newRow("token-row");
  part(row, "name").textContent = token.name;
  part(row, "since").textContent = text("tokenSince", { time: day(token.created_at) });
  label(part(row, "revoke"), text("revokeToken", { name: token.name }));
  part(row, "revoke").addEventListener("click", () => revoke(token));
  return row;
}

async function makeToken(event) {
  event.preventDefault();
  const name = byId("token-name").value.trim();
  try {
    const { token } = await call("POST", "/tokens", { name });
    byId("token-form").reset();
    byId("token-value").value = token;
    byId("token-told").textContent = text("tokenMade", { name });
    byId("token-made").hidden = false;
    byId("token-value").focus();
    byId("token-value").select();
  } catch (error) {
    return report(error);
  }
  await listTokens();
}

async function revoke({ id, name }) {
  if (!(await ask(text("revokeTitle", { name }), text("revokeDetail"), text("revoke")))) return;
  try {
    await call("DELETE", `/tokens/${id}`);
  } catch (error) {
    return report(error);
  }
  hideToken();
  await listTokens();
  byId("token-name").focus();
  say(text("revoked", { name }));
}

function hideToken() {
  byId("token-made").hidden = true;
  byId("token-value").value = "";
}

// ---- The view

// Called when the view is shown, or left.
export function showAccount(on) {
  hideToken();
  byId("password-told").textContent = "";
  if (!on) return;
  byId("account-title").textContent = text("accountOf", { name: session.user });
  byId("account-user").value = session.user;
  listTokens();
}

export function startAccount() {
  byId("password-form").addEventListener("submit", changePassword);
  byId("password-form").addEventListener("input", compare);
  byId("token-form").addEventListener("submit", makeToken);
  byId("token-copy").addEventListener("click", () => copy(byId("token-value"), byId("token-told")));
  byId("everywhere").addEventListener("click", () => logOut(true));
}
