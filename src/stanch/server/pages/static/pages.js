"use strict";
// Live update without reload: the main part is fetched again and put in place when it has changed,
// unless somebody works in it just now.

const main = document.getElementById("main");
const everyMs = Number(main.dataset.live) * 1000;
let last = main.innerHTML;

async function refresh() {
  if (document.hidden || main.contains(document.activeElement)) return;
  if (String(getSelection())) return;
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok || answer.redirected) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const content = fresh.getElementById("main").innerHTML;
  if (content === last) return;
  last = content;
  main.innerHTML = content;
}

if (everyMs > 0) setInterval(() => refresh().catch(() => {}), everyMs);
