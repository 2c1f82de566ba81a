// The statistics page: asks /stats every two seconds, draws what it says. Requests and errors come
// from `history`, second by second; percentiles and tokens are noted with each answer.
import { ApiError, getToken, request, setToken } from './api.js';
import { lineChart } from './charts.js';
import { $, announce, h, icon, setText } from './dom.js';
import * as format from './format.js';
import { onLanguage, t } from './i18n.js';
import { startPage } from './page.js';
import { redrawSnippets, showSnippets } from './snippets.js';

const POLL_MS = 2000;
const SLOWEST_POLL_MS = 15000;
const WINDOW_MS = 5 * 60 * 1000;

const state = {
	stats: null, health: null, mappings: null,
	scope: 'node', paused: false, failures: 0,
	seconds: [],      // {at, rate, errors}, oldest first
	samples: [],      // {at, p50, p95, p99, input, output}, one an answer, oldest first
	previous: null,   // {at, totals} of the last answer
	skew: 0,          // the gateway's clock minus ours, ms
	sort: { column: 'requests', down: true },
	timer: 0, asked: 0,
};

/* ---- figures ---- */

const TILES = [
	['tile.rate', (s) => format.decimal(s.performance.requests_per_sec), (s) => t('tile.total', { n: format.short(s.totals.requests) })],
	['tile.latency', (s) => format.milliseconds(s.performance.p95_response_time_ms),
		(s) => t('tile.percentiles', { p50: format.milliseconds(s.performance.p50_response_time_ms), p99: format.milliseconds(s.performance.p99_response_time_ms) })],
	['tile.errors', (s) => format.percent(s.performance.error_rate), (s) => t('tile.total', { n: format.short(s.totals.errors) })],
	['tile.active', (s) => format.count(s.performance.active_requests), (s) => t('tile.connections', { n: format.count(s.performance.active_connections) })],
	['tile.tokens', (s) => format.short(s.totals.input_tokens + s.totals.output_tokens),
		(s) => t('tile.directions', { input: format.short(s.totals.input_tokens), output: format.short(s.totals.output_tokens) })],
	['tile.bytes', (s) => format.bytes(s.totals.bytes_in + s.totals.bytes_out),
		(s) => t('tile.directions', { input: format.bytes(s.totals.bytes_in), output: format.bytes(s.totals.bytes_out) })],
];

function buildTiles() {
	$('#tiles').replaceChildren(...TILES.map(([key]) => h('div', { class: 'tile' },
		h('h2', {}, t(key)), h('p', { class: 'value' }, format.NONE), h('p', { class: 'muted' }, ''))));
}

function showTiles() {
	[...$('#tiles').children].forEach((tile, i) => {
		setText(tile.children[1], TILES[i][1](state.stats));
		setText(tile.children[2], TILES[i][2](state.stats));
	});
}

const CHARTS = [
	{ id: 'requests', from: 'seconds', title: 'chart.requests', format: format.decimal, series: [['rate', 'series.requests', 'accent', 0.12]] },
	{ id: 'latency', from: 'samples', title: 'chart.latency', format: format.milliseconds, series: [['p50', 'series.p50', 'ink-1'], ['p95', 'series.p95', 'ink-2'], ['p99', 'series.p99', 'ink-3']] },
	{ id: 'errors', from: 'seconds', title: 'chart.errors', format: format.decimal, series: [['errors', 'series.errors', 'bad', 0.12]] },
	{ id: 'tokens', from: 'samples', title: 'chart.tokens', format: format.decimal, series: [['input', 'series.input', 'ink-1', 0.1], ['output', 'series.output', 'ink-2', 0.1]] },
];

function buildCharts() {
	for (const chart of CHARTS) {
		chart.drawn = lineChart($('#chart-' + chart.id), chart.series.map(([, , ink, wash]) => ({ ink, wash })),
			{ formatX: format.clock, formatY: chart.format });
	}
}

function showCharts() {
	const to = state.previous ? state.previous.at : Date.now() + state.skew;
	const first = Math.min(to - 60000, ...state.seconds.slice(0, 1).map((s) => s.at), ...state.samples.slice(0, 1).map((s) => s.at));
	const start = Math.max(first, to - WINDOW_MS);
	for (const { drawn, title, from, series, format: write } of CHARTS) {
		const last = state[from][state[from].length - 1];
		const labels = series.map(([, label]) => t(label));
		const points = series.map(([name]) => state[from].map((s) => ({ x: s.at, y: s[name] })));
		const now = labels.map((label, i) => `${label} ${write(last ? last[series[i][0]] : undefined)}`).join(', ');
		drawn.update({ labels, points, from: start, to, summary: t('chart.summary', { title: t(title), now }) });
	}
}

/* ---- samples ---- */

// `history` has whole seconds, the last one still running. Those of other nodes arrive a little late
// and are taken again with the next answer.
function addSeconds(history) {
	const seconds = (history || []).slice(0, -1).map((row) => ({ at: Date.parse(row.at), rate: row.requests, errors: row.errors }));
	if (!seconds.length) return;
	state.seconds = state.seconds.filter((second) => second.at < seconds[0].at).concat(seconds);
}

function addSample({ performance, totals }, at) {
	const seconds = state.previous ? (at - state.previous.at) / 1000 : 0;
	// A total that shrank, or a page that slept: a gap is truer than a figure.
	const rate = (name) => {
		const grown = seconds > 0 ? totals[name] - state.previous.totals[name] : NaN;
		return grown >= 0 && seconds < SLOWEST_POLL_MS / 500 ? grown / seconds : NaN;
	};
	state.samples.push({
		at, input: rate('input_tokens'), output: rate('output_tokens'),
		p50: performance.p50_response_time_ms, p95: performance.p95_response_time_ms, p99: performance.p99_response_time_ms,
	});
	state.previous = { at, totals };
}

function addFigures(stats, at) {
	const recent = (point) => point.at > at - WINDOW_MS - SLOWEST_POLL_MS;
	addSeconds(stats.history);
	addSample(stats, at);
	state.seconds = state.seconds.filter(recent);
	state.samples = state.samples.filter(recent);
}

// The Date header has whole seconds: follow it only where the clocks really differ.
function serverNow(headers) {
	const said = Date.parse(headers.get('date') || '');
	if (!Number.isNaN(said) && Math.abs(said - Date.now() - state.skew) > 2000) state.skew = said - Date.now();
	return Date.now() + state.skew;
}

/* ---- table ---- */

// No time at all means that nothing was asked in the last minute.
const responseTime = (value) => (value ? format.milliseconds(value) : format.NONE);
const COLUMNS = [
	['prefix', (v) => v], ['requests', format.short], ['requests_per_sec', format.decimal], ['error_rate', format.percent],
	['avg_response_time_ms', responseTime], ['p50_response_time_ms', responseTime],
	['p95_response_time_ms', responseTime], ['p99_response_time_ms', responseTime],
	['active_requests', format.count], ['bytes_in', format.bytes], ['bytes_out', format.bytes],
	['input_tokens', format.short], ['output_tokens', format.short], ['last_request_at', (v) => format.ago(v, Date.now() + state.skew)],
];
const rows = new Map(); // prefix -> <tr>

function buildTable() {
	$('#endpoints thead tr').replaceChildren(...COLUMNS.map(([name]) => h('th', { scope: 'col', 'data-column': name },
		h('button', { type: 'button', onclick: () => sortBy(name) }, t('column.' + name)))));
	rows.clear();
	$('#endpoints tbody').replaceChildren();
}

function sortBy(column) {
	const { sort } = state;
	sort.down = sort.column === column ? !sort.down : column !== 'prefix';
	sort.column = column;
	showTable();
	announce(t(sort.down ? 'sorted.down' : 'sorted.up', { column: t('column.' + column) }));
}

function sorted(endpoints) {
	const { column, down } = state.sort;
	const words = $('#filter').value.trim().toLowerCase();
	const compare = (a, b) => (typeof a[column] === 'number' && typeof b[column] === 'number'
		? a[column] - b[column] : String(a[column] ?? '').localeCompare(String(b[column] ?? '')));
	return endpoints.filter((e) => e.prefix.toLowerCase().includes(words))
		.sort((a, b) => (down ? compare(b, a) : compare(a, b)) || a.prefix.localeCompare(b.prefix));
}

function rowFor(prefix) {
	if (!rows.has(prefix)) {
		rows.set(prefix, h('tr', {}, COLUMNS.map(([name]) => h(name === 'prefix' ? 'th' : 'td', name === 'prefix' ? { scope: 'row' } : {}))));
	}
	return rows.get(prefix);
}

function showTable() {
	const list = sorted(state.stats.endpoints);
	const body = $('#endpoints tbody');
	list.forEach((endpoint, i) => {
		const row = rowFor(endpoint.prefix);
		COLUMNS.forEach(([name, write], at) => setText(row.children[at], write(endpoint[name])));
		row.children[3].classList.toggle('bad-text', endpoint.error_rate > 0);
		if (body.children[i] !== row) body.insertBefore(row, body.children[i] || null);
	});
	while (body.children.length > list.length) body.lastChild.remove();
	for (const head of $('#endpoints thead tr').children) {
		const on = head.dataset.column === state.sort.column;
		if (on) head.setAttribute('aria-sort', state.sort.down ? 'descending' : 'ascending');
		else head.removeAttribute('aria-sort');
	}
	$('#no-endpoints').hidden = list.length > 0;
	setText($('#no-endpoints'), t(state.stats.endpoints.length ? 'search.none' : 'endpoints.none'));
}

/* ---- state of the gateway and of the connection ---- */

function showHealth() {
	const pill = $('#health');
	const { health } = state;
	const good = health && health.status === 'ok';
	const redis = health && typeof health.redis === 'string' ? health.redis : '';
	const kind = !health || state.failures ? 'unknown' : !good ? 'bad' : redis && redis !== 'ok' ? 'warn' : 'ok';
	pill.className = 'pill ' + kind;
	setText(pill, kind === 'unknown' ? t('health.unknown') : kind === 'ok' ? t('health.ok')
		: kind === 'warn' ? t('health.redis', { state: redis }) : t('health.bad', { state: String(health.status || '?') }));
}

function showConnection() {
	const lost = $('#lost');
	lost.hidden = !state.failures;
	$('#live').classList.toggle('stale', state.failures > 0);
	if (state.failures) setText(lost, t('lost', { at: state.previous ? format.clock(state.previous.at) : format.NONE }));
}

function showPause() {
	const button = $('#pause');
	button.replaceChildren(icon(state.paused ? 'play' : 'pause'), h('span', {}, t(state.paused ? 'resume' : 'pause')));
}

function showStats() {
	const { stats } = state;
	if (!stats) return;
	$('#gate').hidden = true;
	$('#live').hidden = false;
	setText($('#about'), t('about', {
		version: stats.version, node: stats.node, uptime: format.duration(stats.uptime_seconds),
		memory: format.decimal(stats.performance.memory_usage_mb), cpu: format.percent(stats.performance.cpu_percent),
	}));
	showTiles();
	showTable();
	showCharts();
	showSnippets(state.mappings || stats.endpoints.map(({ prefix }) => ({ prefix })));
}

/* ---- asking ---- */

async function askHealth() {
	try {
		const { body } = await request('GET', '/health', { accept: [503], token: null });
		return body || { status: '?' };
	} catch (error) {
		return error.status ? { status: String(error.status) } : null;
	}
}

// With the admin token at hand the snippets know targets and dialects.
async function askMappings() {
	if (!getToken()) return null;
	try {
		return (await request('GET', '/api/mappings')).body.mappings;
	} catch (error) {
		return state.mappings;
	}
}

async function ask() {
	const mine = ++state.asked;
	const path = state.scope === 'cluster' ? '/stats?scope=cluster' : '/stats';
	const stats = request('GET', path).catch((error) => error);
	const [answer, health, mappings] = await Promise.all([stats, askHealth(), askMappings()]);
	if (mine !== state.asked) return; // the scope changed, or the page was paused, meanwhile
	state.health = health;
	state.mappings = mappings;
	if (answer instanceof ApiError) onFailure(answer);
	else onStats(answer);
}

function onStats({ body, headers }) {
	if (state.failures) announce(t('found'));
	state.failures = 0;
	state.stats = body;
	addFigures(body, serverNow(headers));
	showStats();
	showHealth();
	showConnection();
	plan(POLL_MS);
}

function onFailure(error) {
	if (error.status === 401) {
		showGate();
		return;
	}
	state.failures++;
	if (!state.stats) {
		$('#live').hidden = false;
		showSnippets([]);
	}
	showHealth();
	showConnection();
	plan(Math.min(POLL_MS * 2 ** (state.failures - 1), SLOWEST_POLL_MS));
}

function plan(delay) {
	clearTimeout(state.timer);
	if (!state.paused && !document.hidden) state.timer = setTimeout(ask, delay);
}

function restart() {
	state.previous = null;
	state.seconds = [];
	state.samples = [];
	plan(0);
}

/* ---- the token, where statistics are private ---- */

function showGate() {
	const refused = Boolean(getToken());
	setToken(null);
	state.stats = null;
	$('#live').hidden = true;
	$('#gate').hidden = false;
	$('#gate-fault').textContent = refused ? t('login.wrong') : '';
	$('#gate-token').setAttribute('aria-invalid', String(refused));
	$('#gate-token').focus();
	showSnippets([]);
}

function onGate(event) {
	event.preventDefault();
	setToken($('#gate-token').value.trim());
	$('#gate-token').value = '';
	restart();
}

/* ---- start ---- */

function onPause() {
	state.paused = !state.paused;
	state.asked++;
	showPause();
	announce(t(state.paused ? 'paused' : 'resumed'));
	plan(0);
}

function onScope(event) {
	state.scope = event.target.value;
	state.asked++;
	if (state.paused) onPause();
	restart();
}

function redraw() {
	buildTiles();
	buildTable();
	showPause();
	showHealth();
	showConnection();
	showStats();
	redrawSnippets();
}

startPage();
buildTiles();
buildCharts();
buildTable();
showPause();
showHealth();
onLanguage(redraw);
$('#gate').addEventListener('submit', onGate);
$('#pause').addEventListener('click', onPause);
$('#filter').addEventListener('input', () => state.stats && showTable());
for (const radio of document.querySelectorAll('[name=scope]')) radio.addEventListener('change', onScope);
document.addEventListener('visibilitychange', () => plan(0));
ask();
