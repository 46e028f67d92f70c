// Open a web page of kdedge in Chromium, and print what a test asks for as JSON.
//   node browse.mjs MODULES < REQUEST
// The request names a task below, Chromium's path, the page's address, and the task's own values.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(join(process.argv[2], "index.js"))("playwright-core");
const request = JSON.parse(readFileSync(0, "utf8"));

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // A name that browsers do not trust as they trust localhost.
  "--host-resolver-rules=MAP untrusted.test 127.0.0.1",
];

/** Wait until the page has checked this browser, or has failed. */
async function ready(page) {
  await page.waitForFunction(() => {
    const agrees = document.getElementById("status").textContent.startsWith("This browser agrees");
    return agrees || document.getElementById("problem").textContent !== "";
  });
}

const text = (page, id) => page.locator(`#${id}`).textContent();

/** What the page says after it has loaded. */
async function seen(page, log) {
  return {
    title: await page.title(),
    status: (await text(page, "status")).trim(),
    problem: await text(page, "problem"),
    facts: await text(page, "facts"),
    disabled: await page.locator("#classify").isDisabled(),
    ...log,
  };
}

const TASKS = {
  async load(page, log) {
    return seen(page, log);
  },

  /** Call the classifier of the page for rows of one or two texts. */
  async predict(page, log) {
    const predictions = await page.evaluate(async (rows) => {
      const { Classifier } = await import("./classifier.js");
      const classifier = await Classifier.load("bundle/");
      const made = [];
      for (const [first, second] of rows) {
        const { ids } = classifier.encoder.encode(first, second ?? null);
        made.push({ ids, ...(await classifier.predict(first, second ?? null)) });
      }
      return made;
    }, request.rows);
    return { ...(await seen(page, log)), predictions };
  },

  /** Tokenize rows of one or two texts. */
  async encode(page) {
    return page.evaluate(async (rows) => {
      const { Bundle } = await import("./bundle.js");
      const { Encoder } = await import("./tokens.js");
      const bundle = await Bundle.open(new URL("bundle/", document.baseURI));
      const encoder = new Encoder(await bundle.json("tokenizer.json"), bundle.manifest);
      return rows.map(([first, second]) => encoder.encode(first, second ?? null));
    }, request.rows);
  },

  /** Use the keyboard alone: tab to each field, type, and press the keys of `request.submit`. */
  async type(page) {
    const visited = [];
    const waiting = [...request.texts];
    await page.evaluate(() => document.activeElement.blur());
    while (waiting.length > 0) {
      await page.keyboard.press("Tab");
      visited.push(await page.evaluate(() => document.activeElement.id));
      const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineWidth);
      visited.push(outline);
      await page.keyboard.type(waiting.shift());
    }
    for (const key of request.submit) {
      await page.keyboard.press(key);
    }
    await page.waitForFunction(() => document.getElementById("answer").textContent !== "");
    const rows = await page.locator("#scores tr").allTextContents();
    const injected = await page.locator("main img, main script").count();
    const cost = await text(page, "cost");
    const focus = await page.evaluate(() => document.activeElement.id);
    return { visited, focus, answer: await text(page, "answer"), cost, rows, injected };
  },

  /** Measure the page with a result, and save a picture if `request.picture` is given. */
  async layout(page) {
    await page.locator("#text").fill(request.texts[0]);
    if (request.texts.length > 1) {
      await page.locator("#pair").fill(request.texts[1]);
    }
    await page.locator("#classify").click();
    await page.waitForFunction(() => document.getElementById("answer").textContent !== "");
    if (request.picture) {
      await page.screenshot({ path: request.picture, fullPage: true });
    }
    return page.evaluate(() => {
      const visible = [...document.querySelectorAll("h1, h2, p, label, th, td, dt, dd, button, a")];
      const shown = visible.filter((node) => node.checkVisibility() && node.textContent.trim());
      return {
        scrollWidth: document.scrollingElement.scrollWidth,
        innerWidth,
        paper: getComputedStyle(document.body).backgroundColor,
        colors: shown.map((node) => [
          node.tagName,
          getComputedStyle(node).color,
          node.tagName === "BUTTON" ? getComputedStyle(node).backgroundColor : null,
        ]),
      };
    });
  },
};

const browser = await chromium.launch({ executablePath: request.chromium, args: FLAGS });
try {
  const log = { addresses: [], errors: [] };
  const page = await browser.newPage({
    viewport: { width: request.width ?? 1280, height: 900 },
    colorScheme: request.dark ? "dark" : "light",
  });
  page.on("request", (sent) => log.addresses.push(sent.url()));
  page.on("pageerror", (error) => log.errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") log.errors.push(message.text());
  });
  await page.goto(request.address);
  await ready(page);
  console.log(JSON.stringify(await TASKS[request.task](page, log)));
} finally {
  await browser.close();
}
