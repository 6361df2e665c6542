// Uploads by Uppy, as it is, in a real browser: node uppy.mjs URL SESSION prints what it saw, as JSON.

import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { chromium } = require("playwright-core");
const { build } = require("esbuild");

const [url, session] = process.argv.slice(2);
const bundle = await build({
  stdin: {
    contents: 'import Uppy from "@uppy/core"; import Tus from "@uppy/tus"; Object.assign(window, { Uppy, Tus })',
    resolveDir: process.env.NODE_MODULES,
  },
  bundle: true, format: "iife", write: false, logLevel: "error",
});
const timeout = 100_000; // milliseconds: for machines that are busy
const browser = await chromium.launch({
  timeout,
  executablePath: execFileSync("which", ["chromium"], { encoding: "utf8" }).trim(),
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const seen = { errors: [] };
try {
  const context = await browser.newContext({ bypassCSP: true }); // the script comes from here, not from the service
  await context.addCookies([{ name: "session", value: session, url }]);
  context.setDefaultTimeout(timeout);
  const page = await context.newPage();
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  await page.goto(`${url}health`);
  await page.addScriptTag({ content: bundle.outputFiles[0].text });

  seen.together = await page.evaluate(async () => {
    const uppy = new Uppy().use(Tus, { endpoint: "/files/" });
    for (const [number, size] of [0, 1000, 3_000_000].entries()) {
      uppy.addFile({ name: `together ${number}`, data: new File([new Uint8Array(size).fill(number)], "x") });
    }
    const { successful, failed } = await uppy.upload();
    return [successful.length, failed.length];
  });

  seen.parallel = await page.evaluate(async () => {
    const uppy = new Uppy().use(Tus, { endpoint: "/files/", parallelUploads: 3 });
    uppy.addFile({ name: "parallel", data: new File([new Uint8Array(3_000_000).fill(7)], "x") });
    const { successful, failed } = await uppy.upload();
    return [successful.length, failed.length];
  });

  let pieces = 0, half;
  const halfway = new Promise((resolve) => (half = resolve));
  await context.route("**/files/*", async (route) => {
    if (route.request().method() === "PATCH" && ++pieces === 3) half(); // which goes no further
    else await route.continue();
  });
  await page.evaluate(() => {
    const uppy = (window.uppy = new Uppy().use(Tus, { endpoint: "/files/", chunkSize: 500_000 }));
    window.id = uppy.addFile({ name: "paused", data: new File([new Uint8Array(3_000_000).fill(8)], "x") });
    window.done = uppy.upload();
  });
  await halfway;
  seen.paused = await page.evaluate(async () => {
    const isPaused = uppy.pauseResume(id);
    const fields = { method: "HEAD", headers: { "Tus-Resumable": "1.0.0" } };
    const head = await fetch(uppy.getFile(id).tus.uploadUrl, fields);
    return { isPaused, offset: Number(head.headers.get("Upload-Offset")) };
  });
  await context.unroute("**/files/*");
  seen.resumed = await page.evaluate(async () => {
    uppy.pauseResume(id);
    const { successful, failed } = await done;
    return [successful.length, failed.length];
  });

  let dropped = 0;
  await context.route("**/files/*", async (route) => {
    if (route.request().method() === "PATCH" && !dropped++) await route.abort("connectionreset");
    else await route.continue();
  });
  seen.dropped = await page.evaluate(async () => {
    const uppy = new Uppy().use(Tus, { endpoint: "/files/", retryDelays: [0, 50, 100] });
    uppy.addFile({ name: "dropped", data: new File([new Uint8Array(3_000_000).fill(9)], "x") });
    const { successful, failed } = await uppy.upload();
    return [successful.length, failed.length];
  });
  seen.drops = dropped;
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
