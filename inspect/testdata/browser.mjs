// Drives the page in chromium. Each step prints "ok" and its name; anything that is not as it should be ends it.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const { chromium } = createRequire(path.join(process.env.MODULES, "x.js"))("playwright-core");
const { READ_ONLY, MOUNTED, KEEPCACHE_SCREENSHOTS: shots } = process.env;
const browser = await chromium.launch({ executablePath: process.env.BROWSER, args: ["--no-sandbox", "--disable-gpu"] });

// open returns a page that notes what must not happen: errors, and requests to anybody else.
const bad = [];
const open = async (options = {}) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && bad.push(`console: ${m.text()}`));
  page.on("pageerror", (e) => bad.push(`error: ${e.message}`));
  page.on("dialog", (d) => (bad.push(`dialog: ${d.message()}`), d.dismiss()));
  page.on("request", (r) => new URL(r.url()).origin === new URL(READ_ONLY).origin || bad.push(`request to ${r.url()}`));
  return page;
};
const shot = async (page, name, fullPage = true) => shots && page.screenshot({ path: path.join(shots, `${name}.png`), fullPage });
const fits = async (page) => assert.ok(
  await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), "it fits the width of the screen");
const step = async (name, run) => {
  await run();
  assert.deepEqual(bad, [], name);
  console.log(`ok ${name}`);
};

const page = await open();
await step("overview", async () => {
  await page.goto(READ_ONLY);
  assert.match(await page.title(), /Overview/);
  assert.ok((await page.locator(".figure").count()) >= 6);
  assert.equal(await page.locator(".buckets tbody tr").count(), 4);
  const reads = () => page.locator(".facts dd").first().textContent();
  const before = await reads();
  await page.waitForFunction((b) => document.querySelector(".facts dd").textContent !== b, before, { timeout: 15000 });
  assert.equal(await page.locator(".mark", { hasText: "read-only" }).count(), 1);
  if (shots) await page.waitForTimeout(Number(process.env.SHOT_WAIT ?? 12000));
  await shot(page, "overview");
  await shot(page, "inspect", false); // the one of docs/
});

await step("search", async () => {
  await page.click("nav >> text=Keys");
  await page.waitForURL(/keys$/);
  await page.click(".browser aside >> text=users");
  await page.waitForURL(/bucket=users/);
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "search");
  await page.keyboard.type("user:0");
  await page.keyboard.press("Enter");
  await page.waitForURL(/prefix=user/);
  assert.equal(await page.locator(".keys tbody tr").count(), 100);
  await shot(page, "keys");
  await page.fill("[name=prefix]", "");
  await page.fill("[name=glob]", "user:*7");
  await page.click("button >> text=Find");
  await page.waitForURL(/glob=user/);
  const first = await page.locator(".keys tbody a").first().textContent();
  await page.keyboard.press("n");
  await page.waitForURL(/after=/);
  assert.notEqual(await page.locator(".keys tbody a").first().textContent(), first);
  await page.fill("[name=tag]", "team:red");
  await page.fill("[name=glob]", "");
  await page.click("button >> text=Find");
  await page.waitForURL(/tag=team/);
  assert.equal(await page.locator(".keys tbody tr", { hasNotText: "team:red" }).count(), 0);
  assert.ok((await page.locator(".keys tbody tr").count()) > 10);
});

await step("entry", async () => {
  await page.goto(`${MOUNTED}entry?bucket=users&key=user:0003`);
  const json = page.locator(".json");
  assert.match(await json.textContent(), /"Lindenweg 7"/);
  const inner = json.locator("details details").first();
  assert.equal(await inner.getAttribute("open"), "");
  await inner.locator("summary").first().focus();
  await page.keyboard.press("Enter");
  assert.equal(await inner.getAttribute("open"), null);
  await page.keyboard.press("Enter");
  await shot(page, "entry");
  await page.goto(`${MOUNTED}keys?bucket=users&limit=1000`);
  const href = await page.locator("td time[data-until]").first().locator("xpath=ancestor::tr//a").getAttribute("href");
  await page.goto(MOUNTED + href);
  const time = page.locator(".countdown time");
  const until = Number(await time.getAttribute("data-until"));
  const now = await page.evaluate(() => Date.now());
  assert.ok(until > now, "it lives");
  await page.clock.install({ time: now });
  await page.reload();
  const was = await time.textContent();
  await page.clock.fastForward(until - now + 2000);
  assert.equal(await time.textContent(), "expired");
  assert.notEqual(was, "expired");
});

await step("mounted under a prefix", async () => {
  const page = await open();
  await page.goto(MOUNTED);
  for (const [link, heading] of [["Keys", "Keys of"], ["Events", "Events"], ["Overview", "Overview"]]) {
    await page.click(`nav >> text=${link}`);
    await page.locator("h1", { hasText: heading }).waitFor({ state: "attached" });
    await page.waitForLoadState();
    assert.ok(page.url().startsWith(MOUNTED));
  }
  assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector(".brand")).display), "flex", "its style came along");
  await page.goto(`${READ_ONLY}events`);
  await page.waitForFunction(() => document.querySelectorAll("#log tr").length > 20, null, { timeout: 15000 });
  await shot(page, "events", false);
  await page.click("#pause");
  await page.close();
});

await step("dark", async () => {
  const page = await open({ colorScheme: "dark" });
  await page.goto(MOUNTED);
  const light = (c) => c.match(/\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0);
  const [ground, ink] = await page.evaluate(() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; });
  assert.ok(light(ground) < 150 && light(ink) > 550, `${ground} ${ink}`);
  await shot(page, "dark");
  await page.goto(`${MOUNTED}entry?bucket=users&key=user:0003`);
  await shot(page, "dark-entry");
  await page.close();
});

await step("phone", async () => {
  const page = await open({ viewport: { width: 375, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
  for (const at of ["", "keys?bucket=users", "keys?bucket=odd+names", "entry?bucket=users&key=user:0003", "events"]) {
    await page.goto(MOUNTED + at);
    await fits(page);
    await shot(page, `phone-${at.replace(/\W.*/, "") || "overview"}`);
  }
  await page.close();
});

await step("read-only refuses", async () => {
  await page.goto(`${READ_ONLY}entry?bucket=users&key=user:0001`);
  assert.equal(await page.locator("#change, [data-op]").count(), 0);
  assert.match(await page.locator("main").textContent(), /Values are hidden/);
  const status = await page.evaluate(async () => (await fetch("v1/delete", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: '{"bucket":"users","key":"user:0001"}',
  })).status);
  assert.equal(status, 403);
  assert.equal(bad.splice(0).filter((m) => !m.includes("403")).length, 0); // the browser notes the refusal itself
});

await step("write from the same origin", async () => {
  const page = await open();
  await page.goto(`${MOUNTED}entry?bucket=users&key=user:0001`);
  await page.fill("[data-op=set] [name=value]", '{"name":"changed","big":12345678901234567890123}');
  await page.fill("[data-op=set] [name=ttl]", "1h30m");
  await Promise.all([page.waitForEvent("load"), page.click("text=Store value")]);
  assert.match(await page.locator(".json").textContent(), /"changed"/);
  assert.match(await page.locator(".countdown").textContent(), /1h (30|29)m/);
  await page.fill("[data-op=set] [name=value]", "{");
  await page.click("text=Store value");
  await page.waitForSelector(".said.bad");
  await page.fill("[data-op=touch] [name=ttl]", "soon");
  await page.click("text=Set lifetime");
  assert.match(await page.locator(".said").textContent(), /not a lifetime/);
  await page.fill("[data-op=touch] [name=ttl]", "never");
  await Promise.all([page.waitForEvent("load"), page.click("text=Set lifetime")]);
  assert.match(await page.locator(".countdown").textContent(), /never expires/);
  await page.goto(`${MOUNTED}entry?bucket=users&key=user:0002`);
  await page.click(".danger");
  await Promise.all([page.waitForURL(/keys\?bucket=users/), page.click("text=Really delete it")]);
  await page.close();
});

await step("hostile names and values", async () => {
  const page = await open();
  await page.goto(`${MOUNTED}keys?bucket=odd+names`);
  const hrefs = await page.locator(".keys tbody a.name").evaluateAll((all) => all.map((a) => a.getAttribute("href")));
  assert.equal(hrefs.length, 12);
  await shot(page, "hostile", false);
  for (const href of hrefs) {
    await page.goto(MOUNTED + href);
    assert.match(await page.locator(".json").textContent(), /onerror=/);
    assert.equal(await page.locator(".json script, .json img, h1 img, h1 script").count(), 0);
  }
  await page.goto(`${MOUNTED}events`);
  await page.waitForFunction(() => document.querySelectorAll("#log tr").length > 3);
  for (const key of ["<img src=x onerror=window.hacked=1>", "\u202e\u0000"]) {
    await page.evaluate((key) => fetch("v1/set", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ bucket: "odd names", key, value: 1 }),
    }), key);
  }
  await page.waitForFunction(() => document.querySelector("#log").textContent.includes("onerror"), null, { timeout: 15000 });
  assert.equal(await page.locator("#log img").count(), 0);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  await page.close();
});

await browser.close();
