// Numbers as people read them.

export const percent = (share) => `${Math.round(100 * share)} %`;

export const plural = (count, name) => `${count} ${name}${count === 1 ? '' : 's'}`;
