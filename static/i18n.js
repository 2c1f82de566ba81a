// The page's language: English or Chinese. The words are in messages.js.
// In HTML, data-i18n="key" sets the text, data-i18n-attr="aria-label:key;placeholder:key" attributes.
import { messages } from './messages.js';

const COLUMN = { en: 0, zh: 1 };
const listeners = [];

export const language = () => (document.documentElement.lang === 'zh' ? 'zh' : 'en');

// t('rows', {n: 3}) puts 3 for {n}. An unknown key is a defect: it shows as itself and is said on the console.
export function t(key, values = {}) {
	const row = messages[key];
	if (!row) {
		console.error('no message ' + key);
		return key;
	}
	return row[COLUMN[language()]].replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export const hasMessage = (key) => Object.hasOwn(messages, key);

export function translate(root) {
	for (const element of root.querySelectorAll('[data-i18n]')) element.textContent = t(element.dataset.i18n);
	for (const element of root.querySelectorAll('[data-i18n-attr]')) {
		for (const pair of element.dataset.i18nAttr.split(';')) {
			const [name, key] = pair.split(':');
			element.setAttribute(name, t(key));
		}
	}
}

export function onLanguage(callback) {
	listeners.push(callback);
}

export function setLanguage(name) {
	document.documentElement.lang = name;
	for (const listener of listeners) listener();
}
