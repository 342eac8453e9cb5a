// State dictionaries have PyTorch's keys, fields TypeScript's names.

export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

export function camelCase(key: string): string {
  return key.replace(/(?<=.)_([a-z])/g, (_, letter: string) => letter.toUpperCase())
}
