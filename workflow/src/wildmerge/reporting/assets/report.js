// Tables of class `interactive` sort and filter, by Tabulator. Without scripts they stay plain tables.
"use strict";

const number = (cell) => parseFloat(String(cell).replace("−", "-"));

const kinds = {
  text: { sorter: "alphanum", headerFilter: "input" },
  choice: {
    sorter: "alphanum",
    headerFilter: "list",
    headerFilterFunc: (wanted, cell) => !wanted || plain(cell) === wanted,
  },
  number: {
    sorter: "number",
    hozAlign: "right",
    headerFilter: "input",
    headerFilterPlaceholder: "at least",
    headerFilterFunc: (least, cell) => isNaN(number(least)) || number(cell) >= number(least),
  },
};

function plain(markup) {
  const element = document.createElement("template");
  element.innerHTML = markup;
  return element.content.textContent;
}

for (const table of document.querySelectorAll("table.interactive")) {
  const heads = [...table.tHead.rows[0].cells];
  const data = [...table.tBodies[0].rows].map((row) =>
    Object.fromEntries([...row.cells].map((cell, i) => [`column${i}`, cell.innerHTML])),
  );
  const columns = heads.map((head, i) => {
    const column = {
      title: head.innerHTML,
      field: `column${i}`,
      formatter: "html",
      ...kinds[head.dataset.kind],
    };
    if (head.dataset.kind === "choice") {
      const values = [...new Set(data.map((row) => plain(row[column.field])))].sort();
      column.headerFilterParams = { values: ["", ...values], clearable: true };
    }
    return column;
  });
  const place = document.createElement("div");
  place.id = `${table.id}-interactive`;
  table.parentElement.after(place);
  // Rows are drawn as they are scrolled to: thousands of them open at once.
  new Tabulator(place, {
    data,
    columns,
    height: data.length > 15 ? "34rem" : false,
    layout: "fitData",
    printAsHtml: true,
    printRowRange: "active",
  });
}
