// Plays a scenario in a real browser: node browser.mjs SCENARIO OPTIONS, the options as JSON. Prints a line of JSON for
// each thing it wants done outside (`ask`), reads what became of it, and in the end prints what it has seen.
//
// Nothing here waits for a time to pass: every step waits for what it needs, and gives up after PATIENCE.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

import * as scenarios from "./scenarios.mjs";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const PATIENCE = 90_000; // milliseconds
const NETWORK = /^Failed to load resource/; // what Chromium says of any request that was refused or broken

const [name, json] = process.argv.slice(2);
const options = JSON.parse(json);
const replies = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const seen = { errors: [], violations: [], failures: [] };
const print = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

async function ask(what, ...values) {
  print({ ask: what, values });
  return JSON.parse((await replies.next()).value);
}

// A window of a person of its own: with a cookie of a session, in a language.
async function open(browser, { session, locale = "en-GB", ...settings } = {}) {
  const calm = { reducedMotion: "reduce", viewport: { width: 1000, height: 800 } }; // contrast is measured after changes
  const context = await browser.newContext({ locale, ...calm, ...settings });
  context.setDefaultTimeout(PATIENCE);
  if (session) await context.addCookies([{ name: "session", value: session, url: options.url }]);
  return watch(await context.newPage());
}

function watch(page) {
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning")
      (NETWORK.test(message.text()) ? seen.failures : seen.errors).push(message.text());
  });
  page.on("filechooser", () => {}); // from now on, lest a chooser opens before the browser knows that we take it
  page.on("dialog", (dialog) => dialog.accept()); // of leaving a page while uploads are under way
  return page;
}

// Drops files as a mouse does: the page gets a DataTransfer from the browser, not from a script.
async function drop(page, files) {
  const session = await page.context().newCDPSession(page);
  const data = { items: [], files, dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"])
    await session.send("Input.dispatchDragEvent", { type, x: 400, y: 300, data });
  await session.detach();
}

// What axe-core has against the page as it is.
async function inspect(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  for (const { id, nodes } of violations) seen.violations.push(`${where}: ${id}: ${nodes.map((node) => node.html)}`);
}

const rows = (page, list, name) => page.$$eval(`#${list} .row [data-part=${name}]`, (all) => all.map((one) => one.textContent));

// Waits until the list shows so many files; their digests by name.
async function stored(page, count) {
  await page.waitForFunction((wanted) => document.querySelectorAll("#files-list .row").length === wanted, count);
  const [names, digests] = [await rows(page, "files-list", "name"), await rows(page, "files-list", "sha256")];
  return Object.fromEntries(names.map((name, at) => [name, digests[at]]));
}

// Waits until a part of a row of the queue says something.
const says = (page, words, part = "detail") =>
  page.locator(`#queue-list .row [data-part=${part}]`, { hasText: words }).first().waitFor();

const shot = (page, name) => page.screenshot({ path: `${options.directory}/${name}.png` });

const browser = await chromium.launch({
  executablePath: execFileSync("which", ["chromium"], { encoding: "utf8" }).trim(),
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  timeout: PATIENCE,
});
try {
  const tools = { ask, drop, inspect, open: (settings) => open(browser, settings), rows, says, seen, shot, stored, watch };
  await scenarios[name](options, tools);
} finally {
  await browser.close();
}
print({ seen });
process.exit(0);
