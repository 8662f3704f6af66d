// What an area stands for is written below the map; arrow keys go from area to area; a click opens one of equal blocks.
"use strict";

const blocks = [...document.querySelectorAll("[data-block]")];
const about = (area) => area.querySelector("title").textContent;
const blockOf = (area) => {
  const map = area.closest(".map");
  return blocks.find((block) => block !== map && about(area).startsWith(block.dataset.block + "."));
};

for (const area of document.querySelectorAll(".area")) area.classList.toggle("leads", Boolean(blockOf(area)));

function say(event) {
  const area = event.target.closest?.(".area");
  if (area) area.closest(".map").querySelector(".said").textContent = about(area);
}

function open(area) {
  const block = blockOf(area);
  if (!block) return;
  block.scrollIntoView({ behavior: "smooth", block: "center" });
  block.focus({ preventScroll: true });
}

// the nearest area whose middle lies that way; sideways distance counts double
function neighbour(from, [right, down]) {
  const middle = (area) => {
    const box = area.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const [x, y] = middle(from);
  let best = null, least = Infinity;
  for (const area of from.parentNode.querySelectorAll(".area")) {
    const [dx, dy] = middle(area).map((at, n) => at - [x, y][n]);
    const along = dx * right + dy * down, aside = Math.abs(dx * down) + Math.abs(dy * right);
    if (along > 1 && along + 2 * aside < least) [best, least] = [area, along + 2 * aside];
  }
  return best;
}

const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

document.addEventListener("keydown", (event) => {
  const area = event.target.closest(".area");
  if (!area) return;
  if (event.key === "Enter") open(area);
  const next = ways[event.key] && neighbour(area, ways[event.key]);
  if (!ways[event.key]) return;
  event.preventDefault();
  if (!next) return;
  area.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
document.addEventListener("mouseover", say);
document.addEventListener("focusin", say);
document.addEventListener("click", (event) => {
  const area = event.target.closest(".area");
  if (area) open(area);
});
