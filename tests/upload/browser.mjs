// Drives the page in a real browser: node browser.mjs LINK DIRECTORY PASSWORD FILE... prints what it saw, as JSON.

import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";

const { chromium } = createRequire(`${process.env.NODE_MODULES}/`)("playwright-core");

const [link, directory, password, ...files] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: execFileSync("which", ["chromium"], { encoding: "utf8" }).trim(),
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const seen = { errors: [] };
try {
  const page = await browser.newPage({
    locale: "en-GB", viewport: { width: 1000, height: 800 }, permissions: [], // it may not copy: the link is shown
  });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
  await page.goto(link);
  await page.waitForSelector("#password:focus");
  seen.address = page.url();
  seen.asksForName = await page.isVisible("#user");
  await page.screenshot({ path: `${directory}/invitation.png` });
  await page.keyboard.type(password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#app", { state: "visible" });
  await page.setInputFiles("#picker", files);
  await page.waitForFunction((count) => document.querySelectorAll("#files-list .row").length === count, files.length);
  seen.names = await page.$$eval("#files-list [data-part=name]", (names) => names.map((name) => name.textContent));
  seen.digests = await page.$$eval("#files-list [data-part=sha256]", (all) => all.map((one) => one.textContent));
  await page.fill("#search", "PICTURE");
  seen.found = await page.$$eval("#files-list .row:not([hidden]) [data-part=name]", (all) => all.map((one) => one.textContent));
  await page.waitForFunction(() => document.querySelector(".tile img")?.naturalWidth > 0); // the thumbnail has come
  await page.fill("#search", "");
  await page.click("#files-list .row [data-part=share]");
  await page.waitForSelector("#notice", { state: "visible" });
  seen.notice = await page.textContent("#notice-text");
  await page.screenshot({ path: `${directory}/light.png` });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.screenshot({ path: `${directory}/dark.png` });
  await page.setViewportSize({ width: 390, height: 800 });
  await page.screenshot({ path: `${directory}/phone.png` });
  seen.overflows = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  await page.click("#logout");
  await page.waitForSelector("#user:focus, #password:focus");
  const chinese = await browser.newPage({ locale: "zh-CN" });
  await chinese.goto(link.split("#")[0]);
  await chinese.waitForSelector("#login", { state: "visible" });
  seen.title = await chinese.title();
  seen.language = await chinese.getAttribute("html", "lang");
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
