// The theme: the system's until a button chooses light or dark, which this browser remembers.

const ORDER = ["auto", "light", "dark"];
const KEY = "penstock-theme";

export function chooseTheme(button, label, onChange) {
  let theme = remembered();
  const apply = () => {
    document.documentElement.dataset.theme = theme;
    label.textContent = theme;
    onChange();
  };
  button.addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // A browser that keeps nothing: the choice lasts as long as the page.
    }
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
  apply();
}

function remembered() {
  try {
    const theme = localStorage.getItem(KEY);
    return ORDER.includes(theme) ? theme : "auto";
  } catch {
    return "auto";
  }
}
