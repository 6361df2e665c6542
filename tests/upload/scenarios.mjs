// What people do with the page. Each function is one scenario; what it returns nothing of, it puts into `seen`.

const offsets = (page, list) =>
  page.on("request", (request) => request.method() === "PATCH" && list.push(Number(request.headers()["upload-offset"])));

export async function invitation({ url, token, password, files }, { inspect, open, rows, seen, shot, stored, watch }) {
  const page = await open();
  await page.goto(`${url}#invitation=${token}`);
  await page.waitForSelector("#password:focus");
  seen.address = page.url();
  seen.asksForName = await page.isVisible("#user");
  await inspect(page, "invitation");
  await shot(page, "invitation");
  await page.keyboard.type(password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#files-view", { state: "visible" });
  await page.setInputFiles("#picker", files);
  seen.digests = await stored(page, files.length);
  await page.fill("#search", "PICTURÉ");
  await page.waitForFunction(() => document.querySelectorAll("#files-list .row").length === 1);
  seen.found = await rows(page, "files-list", "name");
  await page.waitForFunction(() => document.querySelector(".tile img")?.naturalWidth > 0); // the thumbnail has come
  await page.fill("#search", "");
  await stored(page, files.length);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await inspect(page, colorScheme);
    await shot(page, colorScheme);
  }
  await page.click("#files-list .row [data-part=share]");
  await page.waitForFunction(() => document.querySelector("#share-url").value);
  await inspect(page, "share");
  await shot(page, "share");
  await page.selectOption("#share-days", "1");
  await page.click("#share-close");
  await page.setViewportSize({ width: 390, height: 800 });
  await shot(page, "phone");
  seen.overflows = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
}

export async function share({ url, session, name }, { open, seen, stored }) {
  const page = await open({ session });
  await page.goto(url);
  await stored(page, 1);
  await page.click("[data-part=share]");
  await page.waitForFunction(() => document.querySelector("#share-url").value);
  const week = await page.inputValue("#share-url");
  await page.selectOption("#share-days", "1");
  await page.waitForFunction((before) => document.querySelector("#share-url").value !== before, week);
  seen.link = await page.inputValue("#share-url");
  await page.click("#share-copy");
  await page.waitForFunction(() => document.querySelector("#share-told").textContent.startsWith("Until") === false);
  const stranger = await open();
  const [download] = await Promise.all([stranger.waitForEvent("download"), stranger.goto(seen.link).catch(() => {})]);
  seen.download = download.suggestedFilename();
  seen.path = await download.path().then((path) => path && import("node:fs").then((fs) => fs.readFileSync(path, "latin1")));
  await page.click("#share-close");
  await page.click("[data-part=delete]");
  await page.click("#ask-yes");
  await page.waitForSelector("#files-empty", { state: "visible" });
  seen.gone = (await stranger.request.get(seen.link)).status();
}

export async function broken({ url, session, files }, { ask, drop, inspect, open, says, seen, shot, stored }) {
  const page = await open({ session });
  seen.offsets = [];
  offsets(page, seen.offsets);
  await page.goto(url);
  await page.waitForSelector("#choose");
  await ask("hold at half");
  await drop(page, files);
  await ask("wait until held", files.length);
  await shot(page, "sending");
  await inspect(page, "sending");
  await ask("break the connection");
  await says(page, "The connection is lost. Next try in");
  await shot(page, "broken");
  await inspect(page, "broken");
  await ask("mend the connection");
  seen.digests = await stored(page, files.length);
  await page.waitForSelector("#queue", { state: "hidden" });
}

export async function reloaded({ url, session, file, other }, { ask, inspect, open, says, seen, shot, stored }) {
  const page = await open({ session });
  seen.offsets = [];
  offsets(page, seen.offsets);
  await page.goto(url);
  await page.waitForSelector("#choose");
  await ask("hold at half");
  await page.setInputFiles("#picker", [file]);
  await ask("wait until held", 1);
  await page.reload();
  await says(page, "not finished");
  await inspect(page, "unfinished");
  await shot(page, "unfinished");
  for (const picked of [other, file]) {
    const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.click("[data-part=toggle]")]);
    await chooser.setFiles(picked);
    if (picked === other) seen.refused = await page.locator("#notice-text", { hasText: "another file" }).textContent();
  }
  await ask("let it go on");
  seen.digests = await stored(page, 1);
  await page.reload();
  await stored(page, 1);
  seen.left = await page.isVisible("#queue");
}

// A file that was dropped can be read again by the page that comes after.
export async function dropped({ url, session, file }, { ask, drop, open, seen, stored }) {
  const page = await open({ session });
  seen.offsets = [];
  offsets(page, seen.offsets);
  await page.goto(url);
  await page.waitForSelector("#choose");
  await ask("hold at half");
  await drop(page, [file]);
  await ask("wait until held", 1);
  await Promise.all([page.waitForRequest((request) => request.method() === "PATCH"), page.reload()]);
  await ask("let it go on");
  seen.digests = await stored(page, 1);
}

export async function paused({ url, session, files }, { ask, open, says, seen, stored }) {
  const page = await open({ session });
  seen.offsets = [];
  offsets(page, seen.offsets);
  await page.goto(url);
  await page.waitForSelector("#choose");
  await ask("hold at half");
  await page.setInputFiles("#picker", files);
  await ask("wait until held", files.length);
  await page.click("#pause-all");
  await says(page, "paused");
  seen.paused = await page.locator("#queue-list .row[data-state=paused]").count();
  await ask("cut the connection"); // nothing that is still on its way arrives
  await ask("let it go on");
  const first = page.locator("#queue-list .row").first();
  await first.locator("[data-part=toggle]").click(); // resumes
  await stored(page, 1);
  const second = page.locator("#queue-list .row[data-state=paused]");
  await second.locator("[data-part=cancel]").click();
  await page.waitForSelector("#queue", { state: "hidden" });
  await ask("wait until nothing is left of the other");
  await page.reload();
  seen.digests = await stored(page, 1);
  seen.left = await page.isVisible("#queue");
}

export async function expired({ url, session, file, name, password }, { ask, open, says, seen, stored }) {
  const page = await open({ session });
  seen.offsets = [];
  offsets(page, seen.offsets);
  await page.goto(url);
  await page.waitForSelector("#choose");
  await ask("hold at half");
  await page.setInputFiles("#picker", [file]);
  await ask("wait until held", 1);
  await ask("end the session");
  await ask("break the connection");
  await ask("mend the connection");
  await page.waitForSelector("#password:focus");
  seen.hint = await page.textContent("#login-hint");
  seen.name = await page.inputValue("#user");
  await page.fill("#password", `not ${password}`);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#login-error").textContent);
  seen.wrong = await page.textContent("#login-error");
  await page.fill("#password", password);
  await page.keyboard.press("Enter");
  seen.digests = await stored(page, 1);
}

export async function restarted({ url, session, file }, { ask, open, says, seen, stored }) {
  const page = await open({ session });
  seen.offsets = [];
  offsets(page, seen.offsets);
  await page.goto(url);
  await page.waitForSelector("#choose");
  await ask("hold at half");
  await page.setInputFiles("#picker", [file]);
  await ask("wait until held", 1);
  await ask("kill the server");
  await says(page, "The connection is lost");
  await ask("start the server");
  seen.digests = await stored(page, 1);
}

// The upload is one tab's; when that is closed, the other one offers to go on with it.
export async function twice({ url, session, file }, { ask, open, says, seen, stored, watch }) {
  const page = await open({ session });
  await page.goto(url);
  await page.waitForSelector("#choose");
  await ask("hold at half");
  await page.setInputFiles("#picker", [file]);
  await ask("wait until held", 1);
  const other = watch(await page.context().newPage());
  await other.goto(url);
  await other.waitForSelector("#files-empty", { state: "visible" });
  await other.waitForFunction(async () => (await navigator.locks.query()).pending.length === 1);
  seen.offered = await other.isVisible("#queue");
  await page.close();
  await says(other, "not finished");
  await ask("let it go on");
  await other.setInputFiles("#picker", [file]); // chosen anew, it goes on too
  seen.digests = await stored(other, 1);
}

export async function refused({ url, session, files, locale }, { ask, open, seen, shot, stored }) {
  const page = await open({ session, locale });
  await page.goto(url);
  await page.waitForSelector("#choose");
  seen.title = await page.title();
  seen.language = await page.getAttribute("html", "lang");
  await page.setInputFiles("#picker", files);
  await page.waitForFunction((count) => document.querySelectorAll("[data-state=failed]").length === count, files.length);
  seen.reasons = await page.$$eval("[data-state=failed] [data-part=detail]", (all) => all.map((one) => one.textContent));
  await shot(page, `refused-${locale}`);
  if (await ask("make room")) {
    await page.click("[data-action=retry]");
    await page.waitForSelector("#queue", { state: "hidden" });
    seen.digests = await stored(page, 1);
  }
}

export async function account({ url, session, password, fresh }, { ask, inspect, open, rows, seen, shot }) {
  const page = await open({ session });
  await page.goto(url);
  await page.click("#to-account");
  await page.waitForSelector("#account-title:focus");
  seen.title = await page.textContent("#account-title");
  await page.fill("#token-name", "backup");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#token-value:focus");
  seen.token = await page.inputValue("#token-value");
  await ask("use the token", seen.token);
  await page.waitForSelector("#tokens .row");
  seen.names = await rows(page, "tokens", "name");
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await inspect(page, `account, ${colorScheme}`);
    await shot(page, `account-${colorScheme}`);
  }
  await page.setViewportSize({ width: 390, height: 800 });
  await shot(page, "account-phone");
  seen.overflows = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  await page.click("#tokens [data-part=revoke]");
  await page.click("#ask-yes");
  await page.waitForSelector("#tokens-none", { state: "visible" });
  await ask("the token is refused", seen.token);

  const change = async (old, first, second) => {
    await page.fill("#old", old);
    await page.fill("#fresh", first);
    await page.fill("#again", second);
    await page.keyboard.press("Enter");
  };
  const told = (words) => page.locator("#password-told", { hasText: words }).waitFor();
  await change(password, fresh, `${fresh}!`);
  seen.differ = await page.$eval("#again", (field) => field.validationMessage);
  await change(`not ${password}`, fresh, fresh);
  await told("The password now is another one.");
  await change(password, fresh, fresh);
  await told("The password is changed.");
  await ask("the old session is over");
  await page.click("#everywhere");
  await page.waitForSelector("#password:focus");
  seen.cookies = (await page.context().cookies()).length;
}

// No mouse: what has the focus is asked for by its name, as a screen reader would tell it.
export async function keyboard({ url, name, password, file }, { ask, open, seen, stored }) {
  const page = await open();
  const focused = () => page.evaluate(() => {
    const element = document.activeElement;
    return element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent ?? element.textContent.trim();
  });
  const tabTo = async (wanted) => {
    for (let presses = 0; presses < 30; presses += 1) {
      await page.keyboard.press("Tab");
      if ((await focused()) === wanted) return;
    }
    throw new Error(`no way by the keyboard to ${wanted}; now at ${await focused()}`);
  };
  const outlined = () => page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  await page.goto(url);
  await page.waitForSelector("#user:focus");
  await page.keyboard.type(name);
  await tabTo("Password");
  await page.keyboard.type(password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#choose:focus");
  await ask("hold at half");
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.keyboard.press("Enter")]);
  await chooser.setFiles(file);
  await ask("wait until held", 1);
  await tabTo("Pause the upload of one.bin");
  seen.outline = await outlined();
  await page.keyboard.press("Space");
  await page.waitForSelector("[data-state=paused]");
  seen.focused = await focused();
  await page.keyboard.press("Space");
  await ask("let it go on");
  seen.digests = await stored(page, 1);
  seen.said = await page.textContent("#status");
  await tabTo("Delete one.bin");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#ask[open]");
  seen.first = await focused(); // what is not dangerous
  await tabTo("Delete");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#files-empty", { state: "visible" });
  seen.after = await focused();
}
