// Search: by a part of a name, or by an item's index as "#123" or "index:123".

const field = byId('find');
const typed = { timer: 0 };

function testFor(text) {
  const index = /^(?:#|index:\s*)(\d+)$/i.exec(text);
  if (index) {
    const wanted = Number(index[1]);
    // A span of several items has the first one's index.
    return () => (group, i) => group.kind[i] === COMPUTE && group.argument[i] >= 0
      && wanted >= group.argument[i] && wanted < group.argument[i] + Math.max(1, group.count[i]);
  }
  const part = text.toLowerCase();
  return (group) => {
    const named = group.names.map((name) => name.toLowerCase().includes(part));
    const kinds = KINDS.map((kind) => kind.includes(part));
    return (_, i) => (group.names[group.called[i]] ? named[group.called[i]] : kinds[group.kind[i]]);
  };
}

function find(text) {
  text = text.trim();
  if (!text || text === '#') { clearFound(false); return; }
  const test = testFor(text);
  const all = [];
  for (const group of app.groups) {
    const matches = test(group);
    group.hit = new Uint8Array(group.spans);
    for (let i = 0; i < group.spans; i += 1) {
      if (matches(group, i)) { group.hit[i] = 1; all.push({ group, i }); }
    }
  }
  all.sort((a, b) => a.group.begin[a.i] - b.group.begin[b.i]);
  app.found = { all, at: -1, now: null };
  sayFound();
  redraw();
}

// What is in the field, which Enter does not leave to the timer: that would begin again behind it.
function findNow() {
  stopTimer();
  find(field.value);
}

function stopTimer() {
  clearTimeout(typed.timer);
  typed.timer = 0;
}

function sayFound() {
  const { found } = app;
  const n = found ? found.all.length : 0;
  byId('found').textContent = !found ? '' : found.at < 0 ? (n ? plural(n, 'match').replace(/matchs$/, 'matches') : 'no match') : `${showCount(found.at + 1)} of ${showCount(n)}`;
  byId('next').disabled = byId('previous').disabled = !n;
}

function nextFound(step) {
  if (!app.found || !app.found.all.length) return false;
  const { found } = app;
  const n = found.all.length;
  found.at = found.at < 0 ? (step > 0 ? 0 : n - 1) : (found.at + step + n) % n;
  const { group, i } = found.all[found.at];
  found.now = { group, i, lane: laneOf(group, i), others: 0 };
  pick(found.now);
  reveal(group, i);
  sayFound();
  return true;
}

function clearFound(empty = true) {
  stopTimer();
  if (empty) field.value = '';
  for (const group of app.groups) group.hit = null;
  app.found = null;
  sayFound();
  redraw();
}

function setUpFind() {
  field.addEventListener('input', () => {
    stopTimer();
    typed.timer = setTimeout(findNow, 120);
  });
  field.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') {
      if (typed.timer || !app.found) findNow();
      nextFound(event.shiftKey ? -1 : 1);
    } else if (event.key === 'Escape') {
      clearFound();
      canvas.focus();
    } else {
      return;
    }
    event.preventDefault();
  });
  byId('next').addEventListener('click', () => nextFound(1));
  byId('previous').addEventListener('click', () => nextFound(-1));
}
