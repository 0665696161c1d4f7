// Numbers for people, and small helpers for the page. Times are nanoseconds from the timeline's begin.

const GROUPED = new Intl.NumberFormat('en');

function showCount(n) { return GROUPED.format(n); }

function plural(n, word) { return `${showCount(n)} ${word}${n === 1 ? '' : 's'}`; }

function threeDigits(value) {
  const text = value >= 100 ? value.toFixed(0) : value.toPrecision(3);
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

const TIME_UNITS = [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']];

function showTime(ns) {
  if (!ns) return '0 s';
  const size = Math.abs(ns);
  // 999.6 would be shown as 1000 of its unit.
  const [divisor, unit] = TIME_UNITS.find(([least]) => size >= least * 0.9995) || TIME_UNITS[3];
  return `${ns < 0 ? '−' : ''}${threeDigits(size / divisor)} ${unit}`;
}

/** A moment with as many digits as a step of the axis can tell apart. */
function showMoment(ns, stepNs) {
  const [divisor, unit] = TIME_UNITS.find(([least]) => Math.max(stepNs * 100, Math.abs(ns) / 1e4) >= least) || TIME_UNITS[3];
  const digits = Math.max(0, Math.min(9, Math.ceil(-Math.log10(stepNs / divisor) - 1e-9)));
  return `${GROUPED_BY(digits).format(ns / divisor)} ${unit}`;
}

const byDigits = new Map();

function GROUPED_BY(digits) {
  if (!byDigits.has(digits)) byDigits.set(digits, new Intl.NumberFormat('en', { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  return byDigits.get(digits);
}

function showBytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (count >= 1023.5 && unit < 4) { count /= 1024; unit += 1; }
  return `${unit ? threeDigits(count) : Math.round(count)} ${units[unit]}`;
}

function showShare(share) {
  const percent = share * 100;
  return `${percent > 0 && percent < 9.95 ? percent.toFixed(1) : Math.round(percent)} %`;
}

function showValue(value, unit) {
  if (unit === 'share') return showShare(value);
  if (unit === 'bytes') return showBytes(value);
  return value ? threeDigits(Math.abs(value)).replace(/^/, value < 0 ? '−' : '') : '0';
}

function byId(id) { return document.getElementById(id); }

/** An element with attributes and children; text goes in as text, whatever it holds. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'swatch') node.style.setProperty('--swatch', `var(--${value})`);
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** The first index of a sorted array, from `low` on, whose value is above `value`. */
function firstAbove(values, value, low, high) {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle] > value) high = middle; else low = middle + 1;
  }
  return low;
}

/** The same, quick where the answer is near `low`. */
function gallop(values, value, low, high) {
  let step = 1;
  while (low + step < high && values[low + step] <= value) { low += step; step *= 2; }
  return firstAbove(values, value, low, Math.min(high, low + step + 1));
}
