for (const box of document.querySelectorAll('.compare')) {
  const slider = box.querySelector('input');
  slider.addEventListener('input', () => box.style.setProperty('--at', slider.value + '%'));
}
