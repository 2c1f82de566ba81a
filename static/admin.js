// The admin page: log in, sections by the URL's fragment (#keys), live refresh. A section is
// {refresh(): asks and draws, throws an ApiError; redraw(): the language changed; isDirty(): something
// was typed into it, where that can be}, made anew each time it is opened.
import { getToken, request, setToken, whenUnauthorized } from './api.js';
import { $, announce, askToDiscard, h, openDialog, setText } from './dom.js';
import { clock, NONE } from './format.js';
import { onLanguage, t } from './i18n.js';
import { openConfiguration } from './configuration.js';
import { openErrors } from './errors.js';
import { openList } from './list.js';
import { startPage } from './page.js';
import { hold, isUnsaved } from './unsaved.js';

const POLL_MS = 3000;
const SLOWEST_POLL_MS = 15000;

const SECTIONS = {
	mappings: (root) => openList(root, 'mappings', refreshSoon),
	keys: (root) => openList(root, 'keys', refreshSoon),
	clients: (root) => openList(root, 'clients', refreshSoon),
	users: (root) => openList(root, 'users', refreshSoon),
	configuration: openConfiguration,
	errors: openErrors,
};

let current = null; // {name, refresh(), redraw(), isDirty()}
let timer = 0;
let failures = 0;
let lastGood = 0;

const wanted = () => (Object.hasOwn(SECTIONS, location.hash.slice(1)) ? location.hash.slice(1) : 'mappings');

function showSections() {
	$('#sections').replaceChildren(...Object.keys(SECTIONS).map((name) => h('a', {
		href: '#' + name, 'aria-current': current && current.name === name ? 'page' : null,
	}, t('section.' + name))));
}

function showSection(focus) {
	const name = wanted();
	const root = $('#section');
	root.replaceChildren();
	current = { name, ...SECTIONS[name](root) };
	document.title = t('section.' + name) + ' · apiproxy';
	showSections();
	if (focus) $('#section-title').focus();
	refreshSoon();
}

/* ---- live refresh ---- */

function showConnection(error) {
	const lost = $('#lost');
	lost.hidden = !error;
	$('#section').classList.toggle('stale', Boolean(error));
	if (!error) return;
	setText(lost, error.status ? t('refused', { message: error.message }) : t('lost', { at: lastGood ? clock(lastGood) : NONE }));
}

async function refresh() {
	const section = current;
	clearTimeout(timer);
	if (!section || document.hidden) return;
	try {
		await section.refresh();
		if (section !== current) return;
		if (failures) announce(t('found'));
		failures = 0;
		lastGood = Date.now();
		showConnection(null);
	} catch (error) {
		if (section !== current || error.status === 401) return;
		if (error.status === undefined) throw error; // a defect of ours
		failures++;
		showConnection(error);
	}
	clearTimeout(timer);
	timer = setTimeout(refresh, Math.min(POLL_MS * 2 ** Math.max(0, failures - 1), SLOWEST_POLL_MS));
}

function refreshSoon() {
	clearTimeout(timer);
	return refresh();
}

/* ---- log in, log out ---- */

function showLogin(message = '') {
	setToken(null);
	current = null;
	clearTimeout(timer);
	for (const dialog of document.querySelectorAll('dialog')) dialog.close();
	$('#admin').hidden = true;
	$('#section').replaceChildren();
	$('#logout').hidden = true;
	$('#login').hidden = false;
	sayLogin(message);
	document.title = t('login.title') + ' · apiproxy';
	$('#login-token').focus();
}

function sayAt(input, fault, message) {
	fault.textContent = message;
	if (message) input.setAttribute('aria-invalid', 'true');
	else input.removeAttribute('aria-invalid');
}

const sayLogin = (message) => sayAt($('#login-token'), $('#login-fault'), message);

function showAdmin(focus) {
	$('#login').hidden = true;
	$('#admin').hidden = false;
	$('#logout').hidden = false;
	showSection(focus);
}

// Is what was entered the admin token? If so it is the token from now on; else why not is said.
async function takeToken(input, say) {
	const token = input.value.trim();
	say(token ? '' : t('fault.needed'));
	if (!token) input.focus();
	// fetch() takes no such header value, and no token has such a character.
	else if (/[^\x21-\x7e]/.test(token)) say(t('login.wrong'));
	else if (await isRight(token, input, say)) {
		input.value = '';
		setToken(token);
		return true;
	}
	return false;
}

async function isRight(token, input, say) {
	try {
		await request('GET', '/api/mappings', { token });
	} catch (error) {
		// 503 says that Redis is away, and that the token was right.
		if (error.status === 503) return true;
		say(error.status === 401 ? t('login.wrong') : error.message);
		input.select();
		return false;
	}
	return true;
}

async function onLogin(event) {
	event.preventDefault();
	if (await takeToken($('#login-token'), sayLogin)) showAdmin(true);
}

function onLogout() {
	showLogin();
	announce(t('logged.out'));
}

// Above what is open: a form being filled in, or a key that is shown once, must outlive the token.
function askAgain() {
	setToken(null);
	clearTimeout(timer);
	if ($('#again')) return;
	const fault = h('p', { id: 'again-fault', class: 'fault', role: 'alert' });
	const input = h('input', { id: 'again-token', type: 'password', autocomplete: 'current-password', spellcheck: 'false', 'aria-describedby': fault.id });
	const form = h('form', { id: 'again' }, h('p', {}, t('login.again')),
		h('div', { class: 'field' }, h('label', { for: input.id }, t('login.token')), input, fault));
	const dialog = openDialog({ title: t('login.title'), body: form, mustAnswer: true, foot: [
		h('button', { type: 'button', onclick: () => leave(onLogout) }, t('logout')), h('button', { class: 'primary', form: 'again' }, t('login.go'))] });
	input.focus();
	form.addEventListener('submit', async (event) => {
		event.preventDefault();
		if (!await takeToken(input, (message) => sayAt(input, fault, message))) return;
		dialog.close();
		refreshSoon();
	});
}

function onUnauthorized() {
	if (isUnsaved() || $('dialog')) askAgain();
	else showLogin(t('login.over'));
}

/* ---- leaving ---- */

function leave(go) {
	if (isUnsaved()) askToDiscard(go);
	else go();
}

// The fragment has changed already: it goes back until the question is answered.
function onFragment() {
	if (!current || location.hash === '#main') return;
	if (!current.isDirty || !current.isDirty()) return showSection(true);
	const to = wanted();
	if (to === current.name) return;
	history.replaceState(null, '', '#' + current.name);
	askToDiscard(() => {
		history.replaceState(null, '', '#' + to);
		showSection(true);
	});
}

startPage();
hold(() => Boolean(current && current.isDirty && current.isDirty()));
whenUnauthorized(onUnauthorized);
onLanguage(() => {
	sayLogin('');
	if (!current) return;
	current.redraw();
	document.title = t('section.' + current.name) + ' · apiproxy';
	showSections();
});
$('#login').addEventListener('submit', onLogin);
$('#logout').addEventListener('click', () => leave(onLogout));
window.addEventListener('hashchange', onFragment);
document.addEventListener('visibilitychange', refreshSoon);
if (getToken()) showAdmin(false);
else showLogin();
