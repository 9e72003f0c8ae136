"use strict";
// Live update without reload: the main part is fetched again, and what has changed of it is put in
// place, unless somebody works in it just now. A page with parts that must stay names those that
// may change by data-part; the server need not make the others (x-stanch-live).

const main = document.getElementById("main");
const everyMs = Number(main.dataset.live) * 1000;
const partsOf = (whole) => {
  const parts = [...whole.querySelectorAll("[data-part]")];
  return parts.length ? parts : [whole];
};
const shown = partsOf(main);
const last = shown.map((part) => part.innerHTML);

async function refresh() {
  if (document.hidden || String(getSelection())) return;
  const answer = await fetch(location.href, { headers: { accept: "text/html", "x-stanch-live": "1" } });
  if (!answer.ok || answer.redirected) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  partsOf(fresh.getElementById("main")).forEach((part, index) => {
    const content = part.innerHTML;
    if (!shown[index] || content === last[index]) return;
    if (shown[index].contains(document.activeElement)) return;
    last[index] = content;
    shown[index].innerHTML = content;
  });
}

if (everyMs > 0) setInterval(() => refresh().catch(() => {}), everyMs);
