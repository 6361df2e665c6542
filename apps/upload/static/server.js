// Requests to the server, but for the uploads themselves (tus.js).

import { errorText, text } from "./text.js";

export class ServerError extends Error {
  // `status` 0: there was no answer. `said`: in the server's own words. `wait`: the seconds after which it wants to be
  // asked again.
  constructor(status, answer, wait = 0) {
    const unsaid = status === 0 ? text("unreachable") : text("unexpected", { status });
    super(answer?.error ? errorText(answer.error) : unsaid);
    this.status = status;
    this.said = answer?.error ?? "";
    this.wait = wait;
  }
}

// Sends `value`, if there is one, as JSON; what was answered. `ServerError`.
export async function call(method, path, value) {
  const content = value && { body: JSON.stringify(value), headers: { "Content-Type": "application/json" } };
  const response = await fetch(path, { method, cache: "no-store", ...content }).catch(() => null);
  if (response === null) throw new ServerError(0);
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new ServerError(response.status, answer);
  return answer;
}
