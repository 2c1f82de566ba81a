// What both pages share: the language and theme switches in the header.
import { $, announce, icon } from './dom.js';
import { language, onLanguage, setLanguage, t, translate } from './i18n.js';

const THEMES = ['auto', 'light', 'dark'];
const themeListeners = [];

export function onTheme(callback) {
	themeListeners.push(callback);
}

function store(name, value) {
	try {
		localStorage.setItem(name, value);
	} catch (e) {
		// the choice then lasts as long as the page
	}
}

function showTheme() {
	const button = $('#theme');
	const choice = document.documentElement.dataset.themeChoice;
	const name = t('theme.' + choice);
	button.replaceChildren(icon(choice));
	button.setAttribute('aria-label', t('theme', { name }));
	button.title = t('theme', { name });
}

function nextTheme() {
	const root = document.documentElement;
	const choice = THEMES[(THEMES.indexOf(root.dataset.themeChoice) + 1) % THEMES.length];
	const dark = window.matchMedia('(prefers-color-scheme: dark)').matches;
	root.dataset.themeChoice = choice;
	root.dataset.theme = choice === 'auto' ? (dark ? 'dark' : 'light') : choice;
	store('apiproxy.theme', choice);
	showTheme();
	announce(t('theme', { name: t('theme.' + choice) }));
}

function switchLanguage() {
	const next = language() === 'zh' ? 'en' : 'zh';
	store('apiproxy.language', next);
	setLanguage(next);
}

export function startPage() {
	translate(document.body);
	$('#theme').addEventListener('click', nextTheme);
	$('#language').addEventListener('click', switchLanguage);
	showTheme();
	onLanguage(() => {
		translate(document.body);
		showTheme();
	});
	// Also when the system's own preference changes (early.js follows it).
	new MutationObserver(() => themeListeners.forEach((f) => f()))
		.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
}
