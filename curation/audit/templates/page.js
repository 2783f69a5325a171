// A picture opens large on click; arrows walk its contact sheet, Escape closes. The page reads the same without it.
(() => {
  const box = document.createElement("dialog");
  box.className = "lightbox";
  const picture = document.createElement("img");
  const words = document.createElement("p");
  box.append(picture, words);
  document.body.append(box);
  let sheet = [], at = 0;
  const show = (index) => {
    at = (index + sheet.length) % sheet.length;
    picture.src = sheet[at].src;
    words.textContent = sheet[at].parentElement.querySelector("figcaption").title;
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest(".lightbox")) return box.close();
    if (!event.target.matches(".sheet img")) return;
    sheet = [...event.target.closest(".section").querySelectorAll("img")];
    show(sheet.indexOf(event.target));
    box.showModal();
  });
  document.addEventListener("keydown", (event) => {
    if (!box.open) return;
    if (event.key === "ArrowRight") show(at + 1);
    if (event.key === "ArrowLeft") show(at - 1);
  });
})();
