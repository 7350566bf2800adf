// Drives a page with a password in chromium, while its program is killed and started again by who runs this.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";

const { chromium } = createRequire(path.join(process.env.MODULES, "x.js"))("playwright-core");
const { BASE, PID, KEEPCACHE_SCREENSHOTS: shots } = process.env;
const browser = await chromium.launch({ executablePath: process.env.BROWSER, args: ["--no-sandbox", "--disable-gpu"] });
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const shot = async (page, name) => shots && page.screenshot({ path: path.join(shots, `${name}.png`) });
const step = async (name, run) => {
  await run();
  console.log(`ok ${name}`);
};
const have = async (what) => {
  console.log(what);
  return (await lines.next()).value;
};
const size = { viewport: { width: 1280, height: 860 } };
const says = (page) => page.locator("body").innerText();
const bare = async (page) => {
  const text = await page.content();
  for (const word of ["app.cache", "pid", PID, "writes", "read-only", "values"]) assert.ok(!text.includes(word), `${word} is shown to a stranger`);
  assert.ok(await page.evaluate(() => document.styleSheets.length === 1 && document.styleSheets[0].cssRules.length > 20), "it has its style");
};

await step("without a password", async () => {
  const page = await (await browser.newContext(size)).newPage();
  // A browser without anybody at it shows what is behind the question.
  const answer = await page.goto(`${BASE}debug/cache/`).catch((e) => e);
  if (answer.status) {
    assert.equal(answer.status(), 401);
    assert.match(await says(page), /Unauthorized\s+.*a user and a password are needed/);
    await bare(page);
  } else {
    assert.match(answer.message, /ERR_INVALID_AUTH_CREDENTIALS|ERR_ABORTED/);
  }
  await shot(page, "password-none");
  await page.context().close();
});

await step("with a wrong password", async () => {
  const context = await browser.newContext({ ...size, httpCredentials: { username: "admin", password: "guess" } });
  const page = await context.newPage();
  const answer = await page.goto(`${BASE}debug/cache/`).catch((e) => e);
  if (answer.status) {
    assert.equal(answer.status(), 401);
    await bare(page);
  } else {
    assert.match(answer.message, /ERR_INVALID_AUTH_CREDENTIALS/);
  }
  await shot(page, "password-wrong");
  await context.close();
});

await step("refused without a question", async () => {
  const page = await (await browser.newContext(size)).newPage();
  const answer = await page.goto(`${BASE}refused/`);
  assert.equal(answer.status(), 403);
  assert.match(await says(page), /Forbidden\s+.*not today/);
  await bare(page);
  await shot(page, "refused");
  await page.context().close();
});

const context = await browser.newContext({ ...size, httpCredentials: { username: "admin", password: "open sesame" } });
const page = await context.newPage();
await step("with the password", async () => {
  await page.goto(`${BASE}debug/cache/`);
  assert.equal(await page.locator("#pid").textContent(), PID);
  await page.click("nav >> text=Keys");
  await page.waitForURL(/keys$/);
  assert.equal(await page.locator(".keys tbody tr").count(), 50);
  await page.click("nav >> text=Overview");
  const time = await page.locator(".live-line time").textContent();
  await page.waitForFunction((t) => document.querySelector(".live-line time").textContent !== t, time, { timeout: 15000 });
  await shot(page, "password-accepted");
});

await step("with the password in the address", async () => {
  const named = await (await browser.newContext(size)).newPage();
  await named.goto(`${BASE.replace("//", "//admin:open%20sesame@")}debug/cache/`);
  const time = await named.locator(".live-line time").textContent();
  await named.waitForFunction((t) => document.querySelector(".live-line time").textContent !== t, time, { timeout: 15000 });
  assert.equal(await named.locator("#lost").innerText(), "");
  await named.context().close();
});

await step("killed and started again", async () => {
  const keys = await context.newPage();
  await keys.goto(`${BASE}debug/cache/keys?bucket=users`);
  await page.bringToFront();
  assert.equal(await page.locator("#lost").innerText(), "");
  assert.equal(await have("kill"), "killed");
  const said = (p) => p.waitForFunction(() => /^No answer from the program since \d\d:\d\d:\d\d\./.test(document.querySelector("#lost").textContent), null, { timeout: 10000 });
  await said(page);
  assert.ok(Number(await page.evaluate(() => getComputedStyle(document.querySelector("main")).opacity)) < 0.6, "its figures are grey");
  const box = await page.locator("#lost").boundingBox();
  assert.ok(box.y === 0 && box.width === size.viewport.width, "across the top");
  await shot(page, "killed");
  await keys.bringToFront();
  await said(keys);
  await shot(keys, "killed-keys");
  await page.bringToFront();
  const pid = await have("start");
  assert.notEqual(pid, PID);
  const back = (p) => p.waitForFunction((pid) => document.querySelector("#pid").textContent === pid && document.querySelector("#lost").textContent === "", pid, { timeout: 20000 });
  await back(page);
  assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector("main")).opacity), "1");
  await shot(page, "started");
  await keys.bringToFront();
  await back(keys);
});

await browser.close();
process.exit(0);
