// Figures and times as people read them, in the page's language. Absent figures show as a dash.
import { language, t } from './i18n.js';

export const NONE = '–';

const locale = () => (language() === 'zh' ? 'zh-CN' : 'en');
const known = (value) => typeof value === 'number' && Number.isFinite(value);

// Intl formatters cost more to make than to use.
const made = new Map();
function formatter(kind, options) {
	const key = locale() + JSON.stringify(options);
	if (!made.has(key)) made.set(key, new kind(locale(), options));
	return made.get(key);
}

export function count(value) {
	return known(value) ? formatter(Intl.NumberFormat, { maximumFractionDigits: 0 }).format(value) : NONE;
}

export function short(value) {
	if (!known(value)) return NONE;
	if (Math.abs(value) < 10000) return count(value);
	return formatter(Intl.NumberFormat, { notation: 'compact', maximumFractionDigits: 1 }).format(value);
}

export function decimal(value) {
	if (!known(value)) return NONE;
	const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
	return formatter(Intl.NumberFormat, { maximumFractionDigits: digits }).format(value);
}

export const percent = (value) => (known(value) ? decimal(value) + ' %' : NONE);

export function milliseconds(value) {
	if (!known(value)) return NONE;
	if (value >= 10000) return decimal(value / 1000) + ' s';
	return (value >= 10 ? count(value) : decimal(value)) + ' ms';
}

export function bytes(value) {
	if (!known(value)) return NONE;
	const units = ['B', 'KB', 'MB', 'GB', 'TB', 'PB'];
	let unit = 0;
	let rest = value;
	while (rest >= 1000 && unit < units.length - 1) {
		rest /= 1000;
		unit++;
	}
	return (unit ? decimal(rest) : count(rest)) + ' ' + units[unit];
}

export function duration(seconds) {
	if (!known(seconds)) return NONE;
	const days = Math.floor(seconds / 86400);
	const hours = Math.floor(seconds / 3600) % 24;
	const minutes = Math.floor(seconds / 60) % 60;
	if (days) return t('duration.days', { days, hours });
	if (hours) return t('duration.hours', { hours, minutes });
	if (minutes) return t('duration.minutes', { minutes, seconds: Math.floor(seconds) % 60 });
	return t('duration.seconds', { seconds: Math.floor(seconds) });
}

function date(value) {
	const at = new Date(value);
	return value && !Number.isNaN(at.getTime()) ? at : null;
}

export function moment(value) {
	const at = date(value);
	return at ? formatter(Intl.DateTimeFormat, { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' }).format(at) : NONE;
}

export function clock(value) {
	const at = date(value);
	return at ? formatter(Intl.DateTimeFormat, { timeStyle: 'medium', hourCycle: 'h23' }).format(at) : NONE;
}

// "2026-11-21", a day and not a moment: no time zone may move it.
export function day(value) {
	const at = date(value + 'T00:00:00Z');
	return at ? formatter(Intl.DateTimeFormat, { month: 'short', day: 'numeric', timeZone: 'UTC' }).format(at) : NONE;
}

export function ago(value, now = Date.now()) {
	const at = date(value);
	if (!at) return NONE;
	const seconds = Math.max(0, Math.round((now - at.getTime()) / 1000));
	const steps = [[60, 1, 'second'], [3600, 60, 'minute'], [86400, 3600, 'hour'], [Infinity, 86400, 'day']];
	const [, size, unit] = steps.find(([end]) => seconds < end);
	return formatter(Intl.RelativeTimeFormat, { numeric: 'auto', style: 'short' }).format(-Math.floor(seconds / size), unit);
}

// The first of many names.
export function names(all, shown = 10) {
	return all.slice(0, shown).join(', ') + (all.length > shown ? ', …' : '');
}
