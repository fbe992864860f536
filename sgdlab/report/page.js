"use strict";

// Sorting: by number where cells carry one, else by text; cells without a number come last.
function sortBy(table, column, descending) {
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const numeric = [...body.rows].every((row) => {
    const value = row.cells[column].dataset.value;
    return value !== undefined && (value === "" || !Number.isNaN(Number(value)));
  });
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
    return descending ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}

// A table that fits needs no box to scroll in, and its head can stay in sight as the page scrolls.
const boxes = new ResizeObserver((entries) => {
  for (const { target: box } of entries) {
    box.classList.toggle("fits", box.firstElementChild.offsetWidth <= box.clientWidth);
  }
});
document.querySelectorAll(".scroll").forEach((box) => boxes.observe(box));

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A figure by itself: on white paper, in plain colours that every program knows.
function standalone(svg) {
  const copy = svg.cloneNode(true);
  const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  paper.setAttribute("width", "100%");
  paper.setAttribute("height", "100%");
  paper.setAttribute("fill", "#ffffff");
  copy.querySelector("title").after(paper);
  return new XMLSerializer().serializeToString(copy).replace(/var\(--[\w-]+, (#[0-9a-f]{6})\)/g, "$1");
}

const data = JSON.parse(document.getElementById("data").textContent);
for (const button of document.querySelectorAll("button[data-svg]")) {
  button.addEventListener("click", () => {
    const svg = standalone(button.closest("figure").querySelector("svg"));
    save(`${button.dataset.svg}.svg`, "image/svg+xml", svg);
  });
}
for (const button of document.querySelectorAll("button[data-csv]")) {
  const name = button.dataset.csv;
  button.addEventListener("click", () => save(`${name}.csv`, "text/csv", data[name]));
}

addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
});
