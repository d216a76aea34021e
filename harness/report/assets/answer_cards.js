// One prompt, its references, and a card per method with its completions.

function details(asked, { methods, threshold, step }) {
  const { item, answers } = asked;
  const known = ['teacher', ...methods].filter((method) => answers.some((answer) => answer.cell.method === method));
  return make(
    'article', { 'aria-label': `${item.task}, ${item.id}` },
    make('header', { class: 'detail-head' }, make('h3', {}, make('bdi', {}, `${item.task} ${item.id}`)), make('div', { class: 'steps' }, step)),
    make('h4', {}, 'Prompt'), textBlock(item.prompts[0], 'Prompt'),
    make('h4', {}, item.gold.length > 1 ? `${item.gold.length} references` : 'Reference'),
    item.gold.length ? item.gold.map((gold) => textBlock(gold, 'Reference')) : note('The samples have no reference.'),
    make('h4', {}, 'Completions'),
    make('div', { class: 'cards' }, known.map((method) => card(method, asked, threshold))),
  );
}

function card(method, asked, threshold) {
  const mine = asked.answers.filter((answer) => answer.cell.method === method);
  return make(
    'section', { class: 'card', 'aria-label': method },
    make('h5', {}, method),
    mine.map((answer) => oneAnswer(answer, asked.item, threshold)),
  );
}

function oneAnswer(answer, item, threshold) {
  const facts = [
    answer.cell.seed === null ? null : `seed ${answer.cell.seed}`,
    answer.index ? `sample ${answer.index + 1}` : null,
    answer.outcome,
    isNumber(answer.tokens) ? plural(answer.tokens, 'token') : null,
  ].filter(Boolean).join(' · ');
  const kind = verdict(answer.score ?? null, threshold);
  return make(
    'div', { class: 'answer' },
    make('p', { class: 'answer-head' },
      make('span', { class: `score ${kind}` }, isNumber(answer.score) ? `${kind} ${number(answer.score, answer.score % 1 ? 1 : 0)}` : 'no score'),
      make('bdi', { class: 'facts' }, visible(facts))),
    (answer.flaws ?? []).map((flaw) => make('p', { class: 'flaw' }, flaw)),
    answer.prompt ? make('details', {}, make('summary', {}, 'Prompt in another template'), textBlock(item.prompts[answer.prompt], 'Prompt')) : null,
    answer.output.text === '' ? note('The completion is empty.') : textBlock(answer.output, `Completion of ${answer.cell.method}`),
    facets(answer),
  );
}

function facets(answer) {
  const more = Object.entries(answer.scores ?? {}).map(([name, value]) => [name, number(value)]);
  const read = Object.entries(answer.extracted ?? {}).map(([name, value]) => [`${name} read out`, value.text]);
  const rows = [...more, ...read, ...(answer.detail ? [['detail', answer.detail]] : [])];
  return rows.length ? make('dl', { class: 'facets' }, rows.map(([name, value]) => [make('dt', {}, name), make('dd', {}, make('bdi', {}, visible(String(value))))])) : null;
}

// A model's text without changes. One that was cut says how long it is.
function textBlock(text, label) {
  const long = text.text.length > 600;
  return [
    make('pre', { class: 'text', dir: 'auto', tabindex: long ? 0 : null, role: long ? 'region' : null, 'aria-label': long ? label : null }, visible(text.text)),
    text.length ? note(`Cut: ${text.text.length.toLocaleString('en-US')} of ${text.length.toLocaleString('en-US')} characters are here, samples.jsonl has all.`) : null,
  ];
}

// Characters that change the direction of text or are invisible, by their number: otherwise one text could look like another.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/u;

function visible(text) {
  if (!HIDDEN.test(text)) return text;
  return text.split(new RegExp(`(${HIDDEN.source})`, 'u')).map((part) => (HIDDEN.test(part) && [...part].length === 1
    ? make('span', { class: 'hidden-character' }, `U+${part.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`) : part));
}
