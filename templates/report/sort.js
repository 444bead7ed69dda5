"use strict";
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), row = head.parentElement, column = [...row.children].indexOf(head);
    const body = head.closest("table").tBodies[0];
    const numbers = head.classList.contains("n");
    const up = head.getAttribute("aria-sort") === (numbers ? "descending" : null) || head.getAttribute("aria-sort") === "descending";
    const key = (line) => {
      const cell = line.children[column];
      return numbers ? (cell.dataset.v === "" ? null : Number(cell.dataset.v)) : cell.textContent.trim().toLowerCase();
    };
    const compare = (one, other) => {
      const a = key(one), b = key(other);
      if (a === null || b === null) return (a === null) - (b === null);  // unknown last, either way
      const order = a < b ? -1 : a > b ? 1 : 0;
      return up ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
    for (const other of row.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
}
