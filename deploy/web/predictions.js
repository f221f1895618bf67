// Logits become named, sorted classes, as in densepath's `predict/answers.py`.

const NOT_A_NUMBER = "the network's answer is not a number";
const DIGITS = 1e6;

/**
 * { class_ids, labels, scores } of the likeliest classes; of equal scores the lower class first.
 * Where the bundle has thresholds also { positive_ids, positive_labels }: all classes above theirs.
 */
export function answer(logits, manifest, topK = 5) {
  const { labels, multi_label: multiLabel, thresholds, temperature = 1 } = manifest;
  const shares = probabilities(Array.from(logits, (value) => value / temperature), multiLabel);
  if (!shares.every(Number.isFinite)) throw new Error(NOT_A_NUMBER);
  const order = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a] || a - b);
  const best = order.slice(0, topK);
  const found = {
    class_ids: best,
    labels: best.map((i) => labels[i]),
    scores: best.map((i) => Math.round(shares[i] * DIGITS) / DIGITS),
  };
  if (!thresholds) return found;
  const positive = order.filter((i) => shares[i] > thresholds[i]);
  return { ...found, positive_ids: positive, positive_labels: positive.map((i) => labels[i]) };
}

/** Softmax in float64, or the sigmoid of each. */
function probabilities(logits, multiLabel) {
  if (multiLabel) return Array.from(logits, (value) => 1 / (1 + Math.exp(-value)));
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(logits, (value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
