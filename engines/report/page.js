"use strict";
(() => {
  const table = document.getElementById("cases");
  const body = table?.tBodies[0]; // a page may have no table of cases
  const groups = [];
  for (const row of body?.rows ?? []) {
    if (row.classList.contains("case")) groups.push([row]);
    else groups.at(-1).push(row);
  }
  const filter = document.getElementById("filter");
  const status = document.getElementById("status");
  const count = document.getElementById("count");

  function show() {
    if (!table) return;
    const wanted = filter.value.trim().toLowerCase();
    const kind = status ? status.value : "";
    let shown = 0;
    for (const [row, ...below] of groups) {
      const notes = below.filter((one) => one.classList.contains("notes"));
      const told = [...row.querySelectorAll(".name"), ...notes];
      const text = told.map((cell) => cell.textContent).join(" ").toLowerCase();
      const own = row.querySelector(".status");
      const fits = text.includes(wanted) && (!kind || own.textContent === kind);
      row.hidden = !fits;
      const toggle = row.querySelector("[aria-controls]");
      for (const one of below) {
        const closed = !notes.includes(one) && toggle.ariaExpanded !== "true";
        one.hidden = !fits || closed;
      }
      shown += fits;
    }
    count.textContent = `${shown} of ${groups.length}`;
  }

  function value(row, column, kind) {
    const cell = row.cells[column];
    if (kind !== "number") return cell.textContent.trim();
    return cell.dataset.value === undefined ? NaN : Number(cell.dataset.value);
  }

  function order(a, b, kind) {
    if (kind !== "number") return a.localeCompare(b, "en", { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return 0;
    return a === b ? 0 : a - b;
  }

  function sort(heading) {
    const up = heading.ariaSort !== "ascending";
    const { kind } = heading.dataset;
    const column = heading.cellIndex;
    for (const other of heading.parentElement.cells) {
      if (other.ariaSort) other.ariaSort = "none";
    }
    heading.ariaSort = up ? "ascending" : "descending";
    const empty = (row) => kind === "number" && Number.isNaN(value(row, column, kind));
    groups.sort(([a], [b]) => {
      if (empty(a) !== empty(b)) return empty(a) ? 1 : -1;
      const apart = order(value(a, column, kind), value(b, column, kind), kind);
      return up ? apart : -apart;
    });
    body.append(...groups.flat());
  }

  for (const heading of table?.tHead.rows[0].cells ?? []) {
    const button = heading.querySelector("button");
    if (button) button.addEventListener("click", () => sort(heading));
  }
  for (const toggle of table?.querySelectorAll("[aria-controls]") ?? []) {
    toggle.addEventListener("click", () => {
      toggle.ariaExpanded = toggle.ariaExpanded === "true" ? "false" : "true";
      show();
    });
  }
  filter?.addEventListener("input", show);
  if (status) status.addEventListener("change", show);

  const viewer = document.getElementById("viewer");
  const image = viewer.querySelector("img");
  let current = null;

  function enlarge(button) {
    current = button;
    const small = button.querySelector("img");
    image.onerror = () => { image.onerror = null; image.src = small.src; };
    image.src = button.dataset.large || small.src;
    image.alt = small.alt;
    viewer.querySelector("figcaption").textContent = button.dataset.caption;
    if (!viewer.open) viewer.showModal();
  }

  function step(by) {
    const all = [...document.querySelectorAll("button.picture")];
    const seen = all.filter((one) => one.offsetParent !== null);
    const next = seen[seen.indexOf(current) + by];
    if (next) enlarge(next);
  }

  for (const button of document.querySelectorAll("button.picture")) {
    button.addEventListener("click", () => enlarge(button));
  }
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
  });
  viewer.addEventListener("close", () => current && current.focus());
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
  });
  addEventListener("beforeprint", () => {
    for (const [row, ...below] of groups) for (const one of below) one.hidden = row.hidden;
  });
  addEventListener("afterprint", show);
  show();
})();
