// The answer, in which each claim can be chosen. Texts become text nodes, so nothing in them is read as HTML.
export default function ({ data, parentElement, setStateValue }) {
  const choosable = (piece) => {
    const claim = document.createElement("span");
    claim.textContent = piece.text;
    claim.className = piece.verdict;
    claim.title = piece.told;
    claim.tabIndex = 0;
    claim.setAttribute("role", "button");
    claim.setAttribute("aria-pressed", String(piece.claim === data.chosen));
    claim.onclick = () => setStateValue("claim", piece.claim);
    claim.onkeydown = (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        setStateValue("claim", piece.claim);
      }
    };
    return claim;
  };
  const pieces = data.pieces.map((piece) => (piece.verdict ? choosable(piece) : document.createTextNode(piece.text)));
  parentElement.querySelector("p").replaceChildren(...pieces);
}
