// One prompt, its references, and a card per method with its completions.

function details(asked, { methods, threshold, step }) {
  const { item, completions } = asked;
  const known = ['teacher', ...methods].filter((method) => completions.some((completion) => completion.cell.method === method));
  return make(
    'article', { 'aria-label': `${item.task}, ${item.id}` },
    make('header', { class: 'detail-head' }, make('h3', {}, make('bdi', {}, `${item.task} ${item.id}`)), make('div', { class: 'steps' }, step)),
    make('h4', {}, 'Prompt'), textBlock(item.prompts[0], 'Prompt'),
    make('h4', {}, item.references.length > 1 ? `${item.references.length} references` : 'Reference'),
    item.references.length ? item.references.map((reference) => textBlock(reference, 'Reference')) : note('The samples have no reference.'),
    make('h4', {}, 'Completions'),
    make('div', { class: 'cards' }, known.map((method) => card(method, asked, threshold))),
  );
}

function card(method, asked, threshold) {
  const mine = asked.completions.filter((completion) => completion.cell.method === method);
  return make(
    'section', { class: 'card', 'aria-label': method },
    make('h5', {}, method),
    mine.map((completion) => oneCompletion(completion, asked.item, threshold)),
  );
}

function oneCompletion(completion, item, threshold) {
  const facts = [
    completion.cell.seed === null ? null : `seed ${completion.cell.seed}`,
    completion.index ? `sample ${completion.index + 1}` : null,
    completion.outcome,
    isNumber(completion.tokens) ? plural(completion.tokens, 'token') : null,
    isNumber(completion.reasoning_tokens) ? `${number(completion.reasoning_tokens, 0)} of them reasoning` : null,
  ].filter(Boolean).join(' · ');
  const kind = verdict(completion.score ?? null, threshold);
  return make(
    'div', { class: 'completion' },
    make('p', { class: 'completion-head' },
      make('span', { class: `score ${kind}` }, isNumber(completion.score) ? `${kind} ${number(completion.score, completion.score % 1 ? 1 : 0)}` : 'no score'),
      make('bdi', { class: 'facts' }, visible(facts))),
    (completion.flaws ?? []).map((flaw) => make('p', { class: 'flaw' }, flaw)),
    completion.prompt ? make('details', {}, make('summary', {}, 'Prompt in another template'), textBlock(item.prompts[completion.prompt], 'Prompt')) : null,
    completion.reasoning ? make('details', {}, make('summary', {}, 'Reasoning'), textBlock(completion.reasoning, `Reasoning of ${completion.cell.method}`)) : null,
    completion.output.text === '' ? note('The completion is empty.') : textBlock(completion.output, `Completion of ${completion.cell.method}`),
    facets(completion),
  );
}

function facets(completion) {
  const more = Object.entries(completion.scores ?? {}).map(([name, value]) => [name, number(value)]);
  const read = Object.entries(completion.extracted ?? {}).map(([name, value]) => [`${name} read out`, value.text]);
  const rows = [...more, ...read, ...(completion.detail ? [['detail', completion.detail]] : [])];
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
