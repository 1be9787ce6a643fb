// Refreshes the page, and focuses the search on "/". Without this script the page reloads every minute.
"use strict";

const EVERY_MS = 10_000;
const main = document.getElementById("main");
const freshness = document.getElementById("freshness");
const button = document.getElementById("pause");
const search = document.querySelector(".search input");
let paused = false;

button.hidden = false;
button.addEventListener("click", () => {
  paused = !paused;
  button.setAttribute("aria-pressed", String(paused));
  button.textContent = paused ? "Resume updates" : "Pause updates";
  if (!paused) refresh();
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});

function isInUse() {
  const selection = document.getSelection();
  const selecting = selection && !selection.isCollapsed && main.contains(selection.anchorNode);
  const typing = document.activeElement && document.activeElement.matches("main input");
  return selecting || typing || document.hidden;
}

// An answer that is no page: the ledger cannot be read, the token has changed.
class Refused extends Error {
  constructor(status) {
    super(String(status));
    this.status = status;
  }
}

// What a person has opened, reached or scrolled to stays as it is.
function replace(fresh) {
  const opened = [...main.querySelectorAll("details[open][id]")].map((item) => item.id);
  const scrolled = [...main.querySelectorAll(".scroll")].map((item) => item.scrollLeft);
  const places = [...main.querySelectorAll("a, button, summary, [tabindex]")];
  const reached = places.indexOf(document.activeElement);
  main.replaceChildren(...fresh.childNodes);
  opened.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  main.querySelectorAll(".scroll").forEach((item, index) => {
    if (scrolled[index] !== undefined) item.scrollLeft = scrolled[index];
  });
  if (reached >= 0) main.querySelectorAll("a, button, summary, [tabindex]")[reached]?.focus({ preventScroll: true });
}

async function refresh() {
  if (paused || isInUse()) return;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
    if (!answer.ok && answer.status !== 404) throw new Refused(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("main");
    if (!fresh) throw new Error("no page");
    if (fresh.innerHTML !== main.innerHTML && !paused && !isInUse()) replace(fresh);
    document.title = page.title;
    document.querySelector(".bar nav").replaceWith(page.querySelector(".bar nav"));
    freshness.replaceChildren(...page.getElementById("freshness").childNodes);
    freshness.classList.remove("stale");
    document.documentElement.dataset.updates = String(Number(document.documentElement.dataset.updates || 0) + 1);
  } catch (error) {
    const why = error instanceof Refused ? `the daemon answers ${error.status}; load the page anew to see why` : "the daemon does not answer";
    if (!freshness.classList.contains("stale")) freshness.append(` and not updated since: ${why}`);
    freshness.classList.add("stale");
  }
}

setInterval(refresh, Number(document.body.dataset.everyMs) || EVERY_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
