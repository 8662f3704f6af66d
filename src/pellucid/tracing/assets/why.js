// Comfort only: without it, everything on the page can be read and opened.
const page = document.querySelector("main.why");
const tools = page.querySelector(".tools");
tools.hidden = false;
tools.addEventListener("click", (event) => {
  const what = event.target.dataset?.do;
  if (what === "dark") {
    const dark = page.classList.contains("dark") ||
      (!page.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
    page.classList.toggle("dark", !dark);
    page.classList.toggle("light", dark);
  } else if (what) {
    page.querySelectorAll("details").forEach((part) => { part.open = what === "expand"; });
  }
});
// a token in the text and its column in the pictures of heads
const near = (event, on) => {
  const at = event.target.closest?.("[data-t]");
  const article = at?.closest("article, main");
  article?.querySelectorAll(`[data-t="${at.dataset.t}"]`).forEach((part) => part.classList.toggle("near", on));
};
page.addEventListener("mouseover", (event) => near(event, true));
page.addEventListener("mouseout", (event) => near(event, false));
