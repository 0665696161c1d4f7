// What stands around the picture: the tip under the pointer, the selected span, events, and what each lane did.

const tip = byId('tip');
const MOST_EVENTS = 300;

/** The span under a point of the canvas, with how many others share its pixel. */
function spanAt(x, y) {
  const row = rowAt(y);
  if (!row || row.type !== 'lane' || x < app.left) return null;
  const inside = y - top(row);
  const { size } = row;
  const below = inside - size.pad - size.main - size.gap;
  const depth = below < 0 ? 0 : 1 + Math.floor(below / (size.sub + size.gap));
  const tracks = row.lane.tracks.filter((track) => track.depth === depth || (depth === 0 && track.depth < 1));
  for (const track of tracks.reverse()) {
    const found = spanOfTrack(row, track, x);
    if (found) return found;
  }
  return null;
}

function spanOfTrack(row, track, x) {
  const { group, lane } = row;
  const [first, stop] = range(track, timeAt(x - 1), timeAt(x + 1));
  const t = timeAt(x);
  let best = -1;
  let bestAway = Infinity;
  let others = -1;
  // A pixel may hold very many; the first few thousand are enough to find the one that is meant.
  for (let j = first; j < Math.min(stop, first + 5000); j += 1) {
    if (!app.shown[group.kind[track.ids[j]]]) continue;
    others += 1;
    const away = Math.max(0, track.begin[j] - t, t - track.end[j]);
    if (away < bestAway) { best = j; bestAway = away; }
  }
  if (best < 0) return null;
  const many = others + Math.max(0, stop - first - 5000);
  const narrow = (track.end[best] - track.begin[best]) * perNs() < NARROW;
  return { group, lane, i: track.ids[best], others: narrow ? many : 0 };
}

function carried(group, i) {
  const value = group.argument[i];
  if (value < 0) return null;
  if (CARRIES_BYTES.has(group.kind[i])) return ['size', showBytes(value)];
  return group.kind[i] === COMPUTE ? ['index', group.count[i] > 1 ? `from ${showCount(value)}` : showCount(value)] : null;
}

function countOf(group, i) {
  if (group.count[i] <= 1) return null;
  return plural(group.count[i], group.kind[i] === COMPUTE ? 'item' : 'span');
}

function tipOfSpan({ group, lane, i, others }) {
  const extra = carried(group, i);
  const long = group.end[i] - group.begin[i];
  const facts = [showTime(long), extra && `${extra[0]} ${extra[1]}`, countOf(group, i)].filter(Boolean).join(' · ');
  return [
    make('b', {}, make('span', { class: 'swatch', swatch: KINDS[group.kind[i]] }), nameOf(group, i)),
    facts, make('br'),
    make('span', { class: 'soft' }, `${lane.label} · ${KINDS[group.kind[i]]} · at ${showMoment(group.begin[i], Math.max(1, long / 100))}`),
    ...(others > 0 ? [make('br'), make('span', { class: 'soft' }, `${showCount(others)} more here; zoom in`)] : []),
  ];
}

function showTip(event, content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const right = event.clientX + 16 + box.width < innerWidth - 8;
  const below = event.clientY + 18 + box.height < innerHeight - 8;
  const x = right ? event.clientX + 16 : Math.max(8, event.clientX - 12 - box.width);
  tip.style.transform = `translate(${x}px, ${below ? event.clientY + 18 : Math.max(8, event.clientY - 12 - box.height)}px)`;
}

function hideTip() { tip.hidden = true; }

function hoverAt(event) {
  const box = canvas.getBoundingClientRect();
  app.pointer = { x: event.clientX - box.left, y: event.clientY - box.top };
  const mark = markAt(app.pointer.x, app.pointer.y);
  app.hover = mark ? null : spanAt(app.pointer.x, app.pointer.y);
  if (mark) showTip(event, [make('b', {}, mark.mark.text), make('span', { class: 'soft' }, [showTime(mark.mark.at), mark.mark.lane].filter(Boolean).join(' · '))]);
  else if (app.hover) showTip(event, tipOfSpan(app.hover));
  else hideTip();
  canvas.classList.toggle('on', Boolean(app.hover));
  redraw();
}

function setUpPointer() {
  canvas.addEventListener('pointermove', (event) => { if (!event.buttons && event.pointerType !== 'touch') hoverAt(event); });
  canvas.addEventListener('pointerleave', () => { app.pointer = app.hover = null; hideTip(); redraw(); });
  canvas.addEventListener('wheel', () => requestAnimationFrame(hideTip), { passive: true });
  canvas.addEventListener('click', (event) => {
    const box = canvas.getBoundingClientRect();
    pick(spanAt(event.clientX - box.left, event.clientY - box.top));
  });
  canvas.addEventListener('dblclick', (event) => {
    const box = canvas.getBoundingClientRect();
    const found = spanAt(event.clientX - box.left, event.clientY - box.top);
    if (found) reveal(found.group, found.i, true);
  });
}

// ------------------------------------------------------------------------------------------------- the selected span

function pick(found) {
  app.picked = found;
  const place = byId('picked');
  if (!found) {
    place.replaceChildren(make('p', { class: 'hint' }, 'Click or tap a bar to see what it is.'));
  } else {
    const { group, lane, i } = found;
    const long = group.end[i] - group.begin[i];
    const fine = Math.max(1, Math.min(long / 100, 1e6));
    const extra = carried(group, i);
    const facts = [
      ['took', showTime(long)], ['began at', showMoment(group.begin[i], fine)], ['lane', lane.label], ['kind', KINDS[group.kind[i]]],
      extra, countOf(group, i) && ['drawn together', countOf(group, i)], app.groups.length > 1 ? ['timeline', group.name] : null,
    ].filter(Boolean);
    place.replaceChildren(make('dl', {},
      make('dd', { class: 'name' }, make('i', { swatch: KINDS[group.kind[i]] }), nameOf(group, i)),
      ...facts.map(([term, text]) => make('div', {}, make('dt', {}, term), make('dd', {}, text)))));
  }
  redraw();
}

function pickNeighbour(step) {
  if (!app.picked) return false;
  const { group, lane, i } = app.picked;
  const { ids } = trackWith(lane, i);
  const next = firstAbove(ids, i, 0, ids.length) - 1 + step;
  if (next < 0 || next >= ids.length) return true;
  pick({ group, lane, i: ids[next], others: 0 });
  const { x, width } = rectOf(group, ids[next]);
  if (x < app.left || x + width > plotRight() || width < 3) reveal(group, ids[next]);
  return true;
}

// ------------------------------------------------------------------------------------------------- events and lanes

function fillEvents() {
  const marks = app.groups.flatMap((group) => group.marks.map((mark) => ({ group, mark })));
  if (!marks.length) return;
  document.querySelector('.events').hidden = false;
  const many = app.groups.length > 1;
  const item = ({ group, mark }) => make('li', {},
    make('button', { type: 'button', class: 'link', onclick: () => showMoments(mark.at) }, showTime(mark.at)),
    make('span', { class: 'lane' }, [many ? group.name : '', mark.lane].filter(Boolean).join(' · ')),
    make('span', { class: isTrouble(mark) ? 'trouble' : '' }, mark.text));
  byId('events').replaceChildren(make('ul', {}, ...marks.slice(0, MOST_EVENTS).map(item)),
    marks.length > MOST_EVENTS ? make('p', { class: 'hint' }, `${showCount(marks.length - MOST_EVENTS)} more are not listed.`) : '');
}

function showMoments(ns) {
  const width = Math.min(viewEnd() - viewBegin(), app.ns / 10);
  show(Math.max(0, ns - width / 2), Math.max(0, ns - width / 2) + width);
  byId('stage').scrollIntoView({ block: 'nearest', behavior: calm.matches ? 'auto' : 'smooth' });
}

function laneRow(group, lane) {
  const meter = make('i');
  meter.style.width = `${lane.busy * 100}%`;
  const longest = lane.longest < 0 ? '–' : make('button', {
    type: 'button', class: 'link', title: `Show ${labelOf(group, lane.longest)}`,
    onclick: () => { pick({ group, lane, i: lane.longest, others: 0 }); reveal(group, lane.longest); byId('stage').scrollIntoView({ block: 'nearest' }); },
  }, showTime(group.end[lane.longest] - group.begin[lane.longest]));
  return make('tr', {},
    make('td', {}, lane.label, lane.pid ? make('small', {}, `pid ${lane.pid}`) : null),
    make('td', {}, make('span', { class: 'meter', 'aria-hidden': 'true' }, meter), make('span', { class: 'share' }, showShare(lane.busy))),
    make('td', {}, showCount(lane.items)), make('td', {}, showCount(lane.spans)), make('td', {}, longest));
}

function fillLanes() {
  const head = make('tr', {}, ...['lane', 'at work', 'items', 'spans', 'longest'].map((text) => make('th', { scope: 'col' }, text)));
  const rows = app.groups.flatMap((group) => [
    ...(app.groups.length > 1 ? [make('tr', { class: 'group' }, make('td', { colspan: '5' }, group.name))] : []),
    ...group.lanes.map((lane) => laneRow(group, lane)),
  ]);
  byId('lanes').replaceChildren(make('table', {}, make('thead', {}, head), make('tbody', {}, ...rows)));
}
