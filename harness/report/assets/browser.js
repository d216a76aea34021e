// The browser of samples: fields, a list of prompts by pages, and beside it the chosen prompt with all completions.

const PAGE = 50;

function sampleBrowser(report, samples, pair) {
  const cells = samples.cells.filter((cell) => inPair(pair)(cell));
  if (cells.length === 0) return note('The run has no completions of this pair.');
  const methods = unique(cells.map((cell) => cell.method)).sort((a, b) => methodRank(a, report) - methodRank(b, report));
  const choice = { task: '', method: '', seed: '', right: '', wrong: '', threshold: 50, disagree: false, flawed: false, needle: '', order: 'as in the task' };
  let everything = askedOf(samples, pair, choice);
  let shown = everything;
  let page = 0;
  let current = null;

  const list = make('ol', { class: 'prompts', onkeydown: moveFocus });
  const status = make('p', { class: 'status', role: 'status' });
  const detail = make('div', { class: 'detail' });
  const pager = make('div', { class: 'pager' });

  function choose(changes) {
    Object.assign(choice, changes);
    if ('method' in changes || 'seed' in changes) everything = askedOf(samples, pair, choice);
    shown = ordered(everything.filter((asked) => matches(asked, choice)), choice.order);
    page = 0;
    open(shown[0] ?? null);
  }

  function open(asked) {
    current = asked;
    if (asked) page = Math.floor(shown.indexOf(asked) / PAGE);
    status.textContent = `${plural(shown.length, 'prompt')} of ${everything.length.toLocaleString('en-US')}`;
    list.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map((each) => make('li', {}, row(each))));
    list.scrollTop = Math.max(0, (list.querySelector('[aria-current]')?.offsetTop ?? 0) - list.offsetTop - 80);
    pager.replaceChildren(...pages());
    detail.replaceChildren(asked ? details(asked, { methods, threshold: choice.threshold, step: neighbours() }) : note('No prompt fits these fields.'));
  }

  function row(asked) {
    const scores = methods.map((method) => asked.scores.get(method)).filter((score) => score !== undefined);
    const right = scores.filter((score) => score !== null && score >= choice.threshold).length;
    return make(
      'button', { type: 'button', class: 'prompt', 'aria-current': asked === current ? 'true' : null, onclick: () => open(asked) },
      make('span', { class: 'prompt-head' }, make('bdi', {}, `${asked.item.task} ${asked.item.id}`), make('span', { class: 'count' }, `${right}/${scores.length} right`)),
      make('bdi', { class: 'snippet' }, visible(snippet(asked.item.prompts[0]?.text ?? ''))),
      make('span', { class: 'marks', 'aria-hidden': 'true' }, scores.map((score) => make('i', { class: verdict(score, choice.threshold) }))),
    );
  }

  function neighbours() {
    const k = shown.indexOf(current);
    const button = (text, label, other) => make('button', { type: 'button', 'aria-label': label, disabled: !other, onclick: () => open(other) }, text);
    return [button('← Previous', 'Previous prompt', shown[k - 1]), button('Next →', 'Next prompt', shown[k + 1])];
  }

  function pages() {
    const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
    const button = (text, label, to) => make('button', { type: 'button', 'aria-label': label, disabled: to < 0 || to > last || to === page, onclick: () => open(shown[to * PAGE]) }, text);
    return [
      button('⏮', 'First page', 0), button('←', 'Previous page', page - 1), make('span', {}, `page ${page + 1} of ${last + 1}`),
      button('→', 'Next page', page + 1), button('⏭', 'Last page', last),
    ];
  }

  function moveFocus(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...list.querySelectorAll('button')];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (!step || !next) return;
    event.preventDefault();
    next.focus();
  }

  const who = [['', '–'], [ANY, 'any method'], [ALL, 'all methods'], ...(samples.cells.some((cell) => ofTeacher(pair)(cell)) ? ['teacher'] : []), ...methods];
  const seeds = unique(cells.map((cell) => String(cell.seed)));
  const search = make('input', { type: 'search', autocomplete: 'off', oninput: () => choose({ needle: search.value.trim().toLowerCase() }) });
  const threshold = make('input', { type: 'number', min: 0, max: 100, step: 'any', value: choice.threshold, oninput: () => choose({ threshold: Number(threshold.value) }) });
  const fields = make(
    'div', { class: 'fields' },
    labelled('Task', select([['', 'all'], ...unique(cells.map((cell) => cell.task))], '', (task) => choose({ task }))),
    labelled('Method', select([['', 'all'], ...methods], '', (method) => choose({ method }))),
    seeds.length > 1 ? labelled('Seed', select([['', 'all'], ...seeds], '', (seed) => choose({ seed }))) : null,
    labelled('Right', select(who, '', (right) => choose({ right }))),
    labelled('Wrong', select(who, '', (wrong) => choose({ wrong }))),
    labelled('Right is a score from', threshold),
    labelled('Order', select(Object.keys(ORDERS), choice.order, (order) => choose({ order }))),
    labelled('Search in all texts', search),
    checkbox('Only where methods disagree', (disagree) => choose({ disagree })),
    checkbox('Only with a flaw (invalid, cut off, harness error)', (flawed) => choose({ flawed })),
  );
  choose({});
  return [
    missingCompletions(samples),
    fields, status,
    make('div', { class: 'browser' }, make('div', { class: 'side-list', role: 'group', 'aria-label': 'Prompts' }, list, pager), detail),
  ];
}

function missingCompletions(samples) {
  const there = samples.items.reduce((sum, item) => sum + item.completions.length, 0);
  if (there >= samples.completions_total) return null;
  return note(`${plural(there, 'completion')} of ${samples.completions_total.toLocaleString('en-US')} are on this page: evenly chosen prompts of each task. `,
    make('code', {}, 'harness report --max-answers'), ' puts more on it; samples.jsonl in each folder has all of them.');
}

function checkbox(text, onchange) {
  const box = make('input', { type: 'checkbox', onchange: () => onchange(box.checked) });
  return make('label', { class: 'check' }, box, text);
}

// The start of the prompt's last line that says something: few-shot prompts begin alike.
function snippet(text) {
  const lines = text.split('\n').map((line) => line.trim()).filter((line) => /\p{L}/u.test(line) && !/^(answer|response|### ?response)\W*$/i.test(line));
  return (lines.at(-1) ?? text).slice(0, 160);
}

function verdict(score, threshold) {
  if (score === null || score === undefined) return 'unscored';
  return score >= threshold ? 'right' : 'wrong';
}
