// Opens a trace in Perfetto's own pages, in a real browser, and asks its trace processor: node perfetto.mjs PAGES TRACE.
// Reads SQL as a list in JSON from stdin, prints the rows of each statement. Nothing is asked of other machines.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { chromium } = require("playwright-core");

const PATIENCE = 300_000; // milliseconds
const TYPES = {
  ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm",
  ".json": "application/json",
};
const [pages, trace] = process.argv.slice(2);
const statements = JSON.parse(readFileSync(0, "utf8"));

const server = createServer((request, response) => {
  const path = normalize(request.url.split("?")[0]);
  const file = path === "/trace" ? trace : join(pages, path === "/" ? "index.html" : path);
  const there = existsSync(file) && statSync(file).isFile();
  response.writeHead(there ? 200 : 404, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" });
  response.end(there ? readFileSync(file) : "");
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const here = `http://127.0.0.1:${server.address().port}`;

const executablePath = execFileSync("which", ["chromium"], { encoding: "utf8" }).trim();
const browser = await chromium.launch({
  executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"], timeout: PATIENCE,
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.route((url) => url.origin !== here, (route) => route.abort());
  await page.goto(`${here}/#!/?url=${here}/trace`);
  await page.waitForFunction(() => globalThis.app?.trace?.engine);
  const answers = [];
  for (const sql of statements)
    answers.push(await page.evaluate(async (sql) => {
      const result = await globalThis.app.trace.engine.query(sql);
      const rows = [];
      for (const row = result.iter({}); row.valid(); row.next())
        rows.push(result.columns().map((column) => String(row.get(column))));
      return rows;
    }, sql));
  process.stdout.write(JSON.stringify(answers));
} finally {
  await browser.close();
  server.close();
}
