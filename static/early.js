// Runs before the first paint, so that neither colours nor language flicker: puts the theme and the
// language that were chosen (localStorage) or that the system prefers on <html>. A plain script: a
// module would run too late. static/page.js holds the switches.
(function () {
	'use strict';
	const root = document.documentElement;
	const dark = window.matchMedia('(prefers-color-scheme: dark)');
	const stored = (name) => {
		try {
			return localStorage.getItem(name);
		} catch (e) {
			return null; // storage may be forbidden; the defaults serve
		}
	};
	const showTheme = () => {
		const choice = root.dataset.themeChoice;
		root.dataset.theme = choice === 'auto' ? (dark.matches ? 'dark' : 'light') : choice;
	};
	const theme = stored('apiproxy.theme');
	root.dataset.themeChoice = theme === 'light' || theme === 'dark' ? theme : 'auto';
	showTheme();
	dark.addEventListener('change', showTheme);
	const language = stored('apiproxy.language') || navigator.language || 'en';
	root.lang = language.toLowerCase().startsWith('zh') ? 'zh' : 'en';
})();
