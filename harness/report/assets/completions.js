// Which prompts and completions are shown: the choice in the browser's fields, as functions of the samples only.

const ANY = '*any';
const ALL = '*all';

// For each prompt of this pair: its completions with their cells, and each method's score (the mean over its completions; null
// if none has a score).
function askedOf(samples, pair, { method, seed }) {
  const mine = samples.cells.map((cell) => cell.teacher === pair.teacher && (cell.student === pair.student || cell.student === null)
    && (method === '' || cell.method === method || cell.method === 'teacher')
    && (seed === '' || cell.seed === null || String(cell.seed) === seed));
  return samples.items.flatMap((item) => {
    const completions = item.completions.filter((completion) => mine[completion.cell]).map((completion) => ({ ...completion, cell: samples.cells[completion.cell] }));
    return completions.length ? [{ item, completions, scores: methodScores(completions) }] : [];
  });
}

function methodScores(completions) {
  const sums = new Map();
  for (const { cell, score } of completions) {
    const sum = sums.get(cell.method) ?? { total: 0, count: 0 };
    if (isNumber(score)) sums.set(cell.method, { total: sum.total + score, count: sum.count + 1 });
    else sums.set(cell.method, sum);
  }
  return new Map([...sums].map(([method, { total, count }]) => [method, count ? total / count : null]));
}

// `right` and `wrong` are '', ANY, ALL or a method; a score of at least `threshold` is right. The teacher counts only if it is chosen.
function matches(asked, { task, right, wrong, threshold, disagree, flawed, needle }) {
  if (task !== '' && asked.item.task !== task) return false;
  const isRight = (score) => score !== null && score >= threshold;
  const isWrong = (score) => score !== null && score < threshold;
  if (!holds(asked.scores, right, isRight) || !holds(asked.scores, wrong, isWrong)) return false;
  if (disagree && !(holds(asked.scores, ANY, isRight) && holds(asked.scores, ANY, isWrong))) return false;
  if (flawed && !asked.completions.some((completion) => completion.flaws)) return false;
  return needle === '' || textsOf(asked).some((text) => text.toLowerCase().includes(needle));
}

function holds(scores, who, test) {
  if (who === '') return true;
  if (who !== ANY && who !== ALL) return scores.has(who) && test(scores.get(who));
  const students = [...scores].filter(([method]) => method !== 'teacher').map(([, score]) => score);
  return who === ANY ? students.some(test) : students.length > 0 && students.every(test);
}

function textsOf({ item, completions }) {
  return [item.id, ...item.prompts.map((prompt) => prompt.text), ...item.references.map((reference) => reference.text), ...completions.map((completion) => completion.output.text)];
}

const ORDERS = {
  'as in the task': null,
  'most disagreement first': (asked) => -spreadOf(asked),
  'lowest mean score first': (asked) => meanOf(asked),
  'highest mean score first': (asked) => -meanOf(asked),
};

function studentScores(asked) {
  return [...asked.scores].filter(([method, score]) => method !== 'teacher' && score !== null).map(([, score]) => score);
}

function spreadOf(asked) {
  const mean = meanOf(asked);
  return studentScores(asked).reduce((sum, score) => sum + (score - mean) ** 2, 0);
}

function meanOf(asked) {
  const scores = studentScores(asked);
  return scores.length ? scores.reduce((sum, score) => sum + score, 0) / scores.length : 0;
}

function ordered(list, name) {
  const key = ORDERS[name];
  return key ? [...list].sort((a, b) => key(a) - key(b)) : list;
}
