"use strict";
(() => {
  const page = document.documentElement;
  const viewer = document.getElementById("viewer");

  const remembered = (theme) => {
    // Pages from disk and in frames may be refused a memory.
    try {
      if (theme) localStorage.setItem("theme", theme);
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };

  const fill = (gallery, numbers) => {
    const figures = numbers.split(" ").filter(Boolean).map((number) =>
      document.getElementById(`example-${number}`).content.cloneNode(true));
    gallery.replaceChildren(...figures);
  };

  const sortBy = (header) => {
    const rises = header.getAttribute("aria-sort") === "descending" ||
      (!header.hasAttribute("aria-sort") && header.classList.contains("text"));
    const column = header.cellIndex;
    const isNumber = header.classList.contains("number");
    const body = header.closest("table").tBodies[0];
    const value = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => isNumber
      ? Number(value(a)) - Number(value(b))
      : value(a).localeCompare(value(b), undefined, { numeric: true });
    body.append(...[...body.rows].sort((a, b) => (rises ? compare(a, b) : compare(b, a))));
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", rises ? "ascending" : "descending");
  };

  const theme = remembered();
  if (theme === "dark" || theme === "light") page.dataset.theme = theme;
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = page.dataset.theme
      ? page.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    page.dataset.theme = isDark ? "light" : "dark";
    remembered(page.dataset.theme);
  });

  for (const gallery of document.querySelectorAll(".gallery[data-examples]")) {
    fill(gallery, gallery.dataset.examples);
  }
  for (const button of document.querySelectorAll(".sortable thead button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }
  for (const button of document.querySelectorAll("button[data-examples]")) {
    button.addEventListener("click", () => {
      document.getElementById("viewer-title").textContent = button.dataset.title;
      fill(viewer.querySelector(".gallery"), button.dataset.examples);
      viewer.showModal();
    });
  }
  document.getElementById("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
  });
})();
