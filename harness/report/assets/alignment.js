// How the two tokenizers of the pair align on its training set.

function alignment(report, pair) {
  const found = report.alignment.find(inPair(pair));
  if (!found || found.reason) return note(`Not known: ${found ? found.reason : 'no training of this pair is in the run'}.`);
  const percent = (part, whole) => (whole ? `${number((100 * part) / whole)} %` : DASH);
  const numbers = [
    ['Student’s tokens with a partner', percent(found.aligned, found.student_tokens), `${number(found.aligned, 0)} of ${number(found.student_tokens, 0)}, responses only`],
    ['Shared vocabulary', number(found.shared_vocabulary, 0), found.same_vocabulary ? 'one vocabulary for both' : 'tokens of the same bytes'],
    ['Tokens for the same text', `${number(found.student_tokens / found.teacher_tokens, 2)} : 1`, 'student to teacher'],
    ['First divergence', found.first_divergence === null ? 'none' : `token ${number(found.first_divergence + 1, 0)}`,
      found.first_divergence === null ? `in ${plural(found.examined, 'response')}` : `median over those of ${plural(found.examined, 'response')} that diverge`],
    ['Wholly aligned responses', percent(found.wholly_aligned, found.examined), `of the first ${number(found.examined, 0)}`],
  ];
  return [
    make('dl', { class: 'numbers' }, numbers.map(([name, value, more]) => make('div', {}, make('dt', {}, name), make('dd', {}, make('b', {}, value), make('small', {}, more))))),
    tokenExamples(found),
  ];
}

function tokenExamples(found) {
  if (found.examples_shown.length === 0) return note('The run’s folder has no tokenizer, so no tokens can be shown.');
  const line = (side, tokens) => make('div', { class: 'token-line' }, make('span', { class: 'side' }, side),
    make('span', { class: 'tokens' }, tokens.map(([text, aligned]) => make('span', { class: aligned ? 'token' : 'token alone' }, visibleSpaces(text)))));
  return make('div', { class: 'token-examples' },
    note(found.same_vocabulary ? 'Responses as both models read them.' : 'The first responses that diverge: underlined tokens have no partner on the same bytes.'),
    found.examples_shown.map((example) => make('div', { class: 'token-example' }, ['student', 'teacher'].map((side) => example[side] && line(side, example[side])))));
}

const visibleSpaces = (text) => text.replaceAll('\n', '⏎').replaceAll(' ', '·').replaceAll('\t', '⇥');
