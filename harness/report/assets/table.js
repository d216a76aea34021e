// A table that sorts by its column heads and filters by selects and a text field.
//
// A column: {label, value(row) to sort by, cell(row) to show (text or node; the value unless given), numeric, head (a node below the
// label)}. The first column heads its row. `filters`: [{label, value(row)}], a select each. `search`: the label of a text field.

function sortableTable({ caption, columns, rows, filters = [], search = null, rowClass = () => null, empty = 'Nothing to show.' }) {
  const body = make('tbody');
  const status = make('p', { class: 'status', role: 'status' });
  const heads = columns.map((column, k) => headCell(column, () => sortBy(k)));
  const chosen = filters.map(() => '');
  let needle = '';
  let order = { column: -1, ascending: true };

  function visible(row) {
    if (!filters.every((filter, k) => chosen[k] === '' || String(filter.value(row)) === chosen[k])) return false;
    return needle === '' || columns.some((column) => String(column.value(row) ?? '').toLowerCase().includes(needle));
  }

  function sorted(list) {
    if (order.column < 0) return list;
    const { value } = columns[order.column];
    const sign = order.ascending ? 1 : -1;
    return [...list].sort((a, b) => compare(value(a), value(b), sign));
  }

  function sortBy(k) {
    const same = order.column === k;
    order = { column: k, ascending: same ? !order.ascending : !columns[k].numeric };
    heads.forEach((head, j) => {
      if (j === k) head.setAttribute('aria-sort', order.ascending ? 'ascending' : 'descending');
      else head.removeAttribute('aria-sort');
    });
    refresh();
  }

  function refresh() {
    const shown = sorted(rows.filter(visible));
    body.replaceChildren(...shown.map((row) => bodyRow(columns, row, rowClass(row))));
    if (shown.length === 0) body.append(make('tr', {}, make('td', { colspan: columns.length, class: 'empty' }, empty)));
    status.textContent = shown.length === rows.length ? '' : `${shown.length} of ${plural(rows.length, 'row')}`;
  }

  const controls = filters.map((filter, k) => {
    const values = unique(rows.map((row) => String(filter.value(row))));
    return labelled(filter.label, select([['', 'all'], ...values], '', (value) => { chosen[k] = value; refresh(); }));
  });
  if (search) {
    const field = make('input', { type: 'search', autocomplete: 'off', oninput: () => { needle = field.value.trim().toLowerCase(); refresh(); } });
    controls.push(labelled(search, field));
  }
  refresh();
  const captionId = freshId('caption');
  return make(
    'div', { class: 'table-block' },
    controls.length ? make('div', { class: 'fields' }, controls, status) : null,
    make(
      'div', { class: rows.length > 40 ? 'scroll tall' : 'scroll', role: 'region', tabindex: 0, 'aria-labelledby': captionId },
      make('table', {}, make('caption', { id: captionId }, make('span', {}, caption)), make('thead', {}, make('tr', {}, heads)), body),
    ),
  );
}

function headCell(column, onclick) {
  const button = make('button', { type: 'button', class: 'sort', onclick }, column.label);
  return make('th', { scope: 'col', class: column.numeric ? 'numeric' : null }, button, column.head ?? null);
}

function bodyRow(columns, row, className) {
  const cells = columns.map((column, k) => {
    const content = column.cell ? column.cell(row) : column.value(row) ?? DASH;
    const attributes = { class: column.numeric ? 'numeric' : null };
    return k === 0 ? make('th', { scope: 'row' }, content) : make('td', attributes, content);
  });
  return make('tr', { class: className }, cells);
}

// What is not there comes last, whichever way the column is sorted.
function compare(a, b, sign) {
  const [left, right] = [a ?? null, b ?? null];
  if (left === null || right === null) return (left === null) - (right === null);
  if (typeof left === 'number' && typeof right === 'number') return sign * (left - right);
  return sign * String(left).localeCompare(String(right), 'en', { numeric: true });
}
