// The admin page: log in, sections by the URL's fragment (#keys), live refresh. A section is
// {title, refresh(): asks and draws, throws an ApiError; redraw(): the language changed}, made anew
// each time it is opened.
import { getToken, request, setToken, whenUnauthorized } from './api.js';
import { $, announce, h, setText } from './dom.js';
import { clock, NONE } from './format.js';
import { onLanguage, t } from './i18n.js';
import { openConfiguration } from './configuration.js';
import { openErrors } from './errors.js';
import { openList } from './list.js';
import { startPage } from './page.js';

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

let current = null; // {name, refresh(), redraw()}
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

function sayLogin(message) {
	$('#login-fault').textContent = message;
	if (message) $('#login-token').setAttribute('aria-invalid', 'true');
	else $('#login-token').removeAttribute('aria-invalid');
}

function showAdmin(focus) {
	$('#login').hidden = true;
	$('#admin').hidden = false;
	$('#logout').hidden = false;
	showSection(focus);
}

async function onLogin(event) {
	event.preventDefault();
	const input = $('#login-token');
	const token = input.value.trim();
	sayLogin(token ? '' : t('fault.needed'));
	if (!token) return input.focus();
	// fetch() takes no such header value, and no token has such a character.
	if (/[^\x21-\x7e]/.test(token)) return sayLogin(t('login.wrong'));
	try {
		await request('GET', '/api/mappings', { token });
	} catch (error) {
		// 503 says that Redis is away, and that the token was right.
		if (error.status !== 503) {
			sayLogin(error.status === 401 ? t('login.wrong') : error.message);
			return input.select();
		}
	}
	input.value = '';
	setToken(token);
	showAdmin(true);
}

function onLogout() {
	showLogin();
	announce(t('logged.out'));
}

startPage();
whenUnauthorized(() => showLogin(t('login.over')));
onLanguage(() => {
	sayLogin('');
	if (!current) return;
	current.redraw();
	document.title = t('section.' + current.name) + ' · apiproxy';
	showSections();
});
$('#login').addEventListener('submit', onLogin);
$('#logout').addEventListener('click', onLogout);
window.addEventListener('hashchange', () => current && location.hash !== '#main' && showSection(true));
document.addEventListener('visibilitychange', refreshSoon);
if (getToken()) showAdmin(false);
else showLogin();
