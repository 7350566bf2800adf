// This script does what the pages cannot do without one: count lifetimes down, refresh the overview, say that the
// program does not answer, show events and send writes. It inserts text as text and never as HTML, except for pages of
// this server, which has escaped everything in them.
"use strict";

(() => {
  const page = document.body.dataset.page;
  const $ = (selector, from = document) => from.querySelector(selector);

  // span formats a duration as the server does, to the second.
  const span = (ms, long) => {
    if (ms <= 0) return "expired";
    const s = Math.floor(ms / 1000), d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
    const two = (a, x, b, y) => (b || long ? `${a}${x} ${b}${y}` : `${a}${x}`);
    if (d) return two(d, "d", h, "h");
    if (h) return two(h, "h", m, "m");
    if (m) return two(m, "m", s % 60, "s");
    return `${s}s`;
  };

  const tick = () => {
    const now = Date.now();
    for (const t of document.querySelectorAll("time[data-until]")) {
      const left = Number(t.dataset.until) - now;
      t.textContent = span(left, t.dataset.long);
      t.classList.toggle("over", left <= 0);
    }
    for (const r of document.querySelectorAll("rect[data-until]")) {
      const from = Number(r.dataset.from), until = Number(r.dataset.until);
      r.setAttribute("width", Math.max(0, Math.min(1000, (1000 * (until - now)) / (until - from))));
    }
  };
  tick();
  setInterval(tick, 1000);

  // Keys: / goes to the search field, n to the next page.
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) return;
    if (e.key === "/" && $("#search")) {
      e.preventDefault();
      $("#search").focus();
    } else if (e.key === "n" && $("#next")) {
      $("#next").click();
    }
  });

  // beside returns the URL of a path next to this page. If the page was opened at http://USER:PASSWORD@HOST/, relative
  // URLs include user and password, and fetch refuses those. The browser sends the password all the same.
  const beside = (path) => {
    const url = new URL(path, location.href);
    url.username = url.password = "";
    return url;
  };

  const post = async (op, body) => {
    const answer = await fetch(beside(`v1/${op}`), {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), redirect: "error",
    });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error.message);
    return said;
  };

  const say = (where, words, bad) => {
    where.textContent = words;
    where.classList.toggle("bad", Boolean(bad));
  };

  // A lifetime in the form that the command accepts: 90s, 5m, 1h30m, 7d, never.
  const lifetime = (text) => {
    if (text.trim() === "never") return -1;
    const units = { ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5 };
    let ms = 0, rest = text.trim();
    if (!rest) throw new Error("a lifetime is missing");
    while (rest) {
      const part = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*/.exec(rest);
      if (!part) throw new Error(`not a lifetime: ${text}`);
      ms += Number(part[1]) * units[part[2]];
      rest = rest.slice(part[0].length);
    }
    return Math.max(1, Math.round(ms));
  };

  const paused = () => $("#pause")?.getAttribute("aria-pressed") === "true";
  const pausing = (then) => document.addEventListener("click", (e) => {
    if (e.target.id !== "pause") return;
    const on = !paused();
    e.target.setAttribute("aria-pressed", on);
    e.target.textContent = on ? "Resume" : "Pause";
    then(on);
  });

  // ask fetches new data for a page. If the program does not answer, the page says so, with the time of the last answer,
  // and turns grey until the program answers again.
  const clock = (at) => at.toLocaleTimeString("en-GB");
  let heard = new Date();
  const gone = (words) => {
    document.body.classList.toggle("lost", Boolean(words));
    if ($("#lost").textContent !== words) $("#lost").textContent = words;
  };
  const ask = async (path) => {
    try {
      const answer = await fetch(beside(path), { redirect: "error", signal: AbortSignal.timeout(5000) });
      if (answer.status === 401 || answer.status === 403) {
        gone(`The program has refused to answer since ${clock(heard)}. The page shows that time. Reload the page.`);
        return null;
      }
      if (answer.status === 429) return null; // busy, but alive
      if (!answer.ok) throw new Error(answer.statusText);
      const text = await answer.text();
      heard = new Date();
      gone("");
      return text;
    } catch {
      gone(`No answer from the program since ${clock(heard)}. The page shows that time.`);
      return null;
    }
  };
  const renewEvery = 2000;

  // beat regularly checks whether the program answers, and calls renew to refresh the page.
  const beat = (renew) => {
    let timer = 0;
    const next = async () => {
      clearTimeout(timer);
      if (!document.hidden) {
        if (!(await renew?.())) {
          const hello = await ask("v1/");
          if (hello) $("#pid").textContent = JSON.parse(hello).pid;
        }
      }
      clearTimeout(timer);
      timer = setTimeout(next, renewEvery);
    };
    timer = setTimeout(next, renewEvery);
    document.addEventListener("visibilitychange", () => document.hidden || next());
  };

  const overview = () => {
    pausing(() => {});
    beat(async () => {
      if (paused() || document.querySelector(".figures + .grid :focus")) return false;
      const text = await ask("./");
      if (!text) return true;
      const fresh = new DOMParser().parseFromString(text, "text/html");
      for (const part of [".marks", ".alarm", ".figures", ".live-line time", "footer"]) $(part).replaceWith(document.adoptNode($(part, fresh)));
      const old = document.querySelectorAll(".grid > .card"), now = fresh.querySelectorAll(".grid > .card");
      old.forEach((card, i) => {
        if (!$(".said", card) && now[i]) card.replaceWith(document.adoptNode(now[i]));
      });
      tick();
      return true;
    });
    document.addEventListener("click", async (e) => {
      const op = e.target.dataset?.op;
      if (!op) return;
      const said = $(".said", e.target.closest("section"));
      e.target.disabled = true;
      say(said, "working …");
      try {
        const r = await post(op, {});
        say(said, op === "sweep" ? `${r.removed} removed` : `${r.before_bytes} to ${r.after_bytes} bytes`);
      } catch (err) {
        say(said, err.message, true);
      }
      e.target.disabled = false;
    });
  };

  const entry = () => {
    const box = $("#change");
    if (!box) return;
    const said = $(".said", box);
    const id = { bucket: JSON.parse(box.dataset.bucket), key: JSON.parse(box.dataset.key) };
    let sure = false;
    box.addEventListener("submit", async (e) => {
      e.preventDefault();
      const form = e.target, op = form.dataset.op, button = $("button", form);
      if (op === "delete" && !sure) {
        sure = true;
        button.textContent = "Really delete it";
        return;
      }
      button.disabled = true;
      try {
        const body = { ...id };
        if (form.elements.ttl) body.ttl_ms = lifetime(form.elements.ttl.value);
        let text = JSON.stringify(body);
        if (op === "set") {
          JSON.parse(form.elements.value.value); // only for its error; the text is sent unchanged, with exact numbers
          text = `${text.slice(0, -1)},"value":${form.elements.value.value}}`;
        }
        const answer = await fetch(beside(`v1/${op}`), {
          method: "POST", headers: { "Content-Type": "application/json" }, body: text, redirect: "error",
        });
        const r = await answer.json();
        if (!answer.ok) throw new Error(r.error.message);
        if (op === "delete") {
          location.href = $(".crumbs a").href;
        } else {
          location.reload();
        }
      } catch (err) {
        say(said, err.message, true);
        button.disabled = false;
      }
    });
  };

  const events = () => {
    const form = $("#watch"), log = $("#log"), state = $("#state"), most = 500;
    let source = null, waiting = null, waited = [];
    const shown = (name) => {
      if (typeof name === "object" && name) name = `base64 ${name.base64}`;
      return (name ?? "").replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
    };
    const far = (e) => (e.total_bytes > 0 ? `${Math.min(Math.floor((100 * (e.done_bytes ?? 0)) / e.total_bytes), 100)} %` : "");
    const cell = (row, text, cls) => {
      const td = document.createElement("td");
      td.textContent = text.length > 300 ? `${text.slice(0, 300)} …` : text;
      if (cls) td.className = cls;
      row.append(td);
      return td;
    };
    const flush = () => {
      waiting = null;
      const rows = document.createDocumentFragment();
      for (const e of waited.slice(-most).reverse()) {
        const row = document.createElement("tr"), at = new Date(e.at_ms);
        cell(row, `${at.toLocaleTimeString("en-GB")}.${String(at.getMilliseconds()).padStart(3, "0")}`);
        const kind = cell(row, "");
        const mark = document.createElement("span");
        mark.className = `kind ${e.kind}`;
        mark.textContent = e.kind;
        kind.append(mark);
        cell(row, shown(e.bucket), "name");
        cell(row, e.kind === "dropped" ? `${e.dropped} events dropped, they came too fast` : [shown(e.key), shown(e.detail), far(e), shown(e.error)].filter(Boolean).join("  "), "name");
        rows.append(row);
      }
      waited = [];
      log.prepend(rows);
      while (log.rows.length > most) log.lastElementChild.remove();
    };
    const start = () => {
      source?.close();
      source = null;
      if (paused()) return say(state, "Paused.");
      const q = new URLSearchParams();
      for (const name of ["bucket", "prefix"]) if (form.elements[name].value) q.set(name, form.elements[name].value);
      const kinds = [...form.querySelectorAll("[name=kind]")].filter((c) => c.checked).map((c) => c.value);
      if (!kinds.length) return say(state, "No kind is selected.");
      q.set("kinds", kinds.join(","));
      source = new EventSource(`v1/events?${q}`);
      source.onopen = () => say(state, "Waiting for events.");
      source.onerror = () => say(state, source.readyState === EventSource.CLOSED ? "The server refused the stream: too many are watching, or it allows none." : "The server does not answer; trying again.", true);
      source.onmessage = (m) => {
        waited.push(JSON.parse(m.data));
        if (waited.length > 2 * most) waited = waited.slice(-most);
        waiting ??= setTimeout(flush, 200);
        state.textContent = "Live, the newest first.";
      };
    };
    pausing(start);
    form.addEventListener("change", start);
    form.addEventListener("submit", (e) => { e.preventDefault(); start(); });
    document.addEventListener("visibilitychange", () => (document.hidden ? (source?.close(), (source = null)) : start()));
    start();
  };

  ({ overview, entry, events })[page]?.();
  if (page === "keys" || page === "entry" || page === "events") beat();
})();
